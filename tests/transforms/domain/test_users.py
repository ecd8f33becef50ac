from __future__ import annotations

from typing import Any

import pytest

from tests.builders import NOW_MS, event, record
from transforms.domain.events import Event, parse_event
from transforms.domain.history import History
from transforms.domain.users import FETCHED, UNAVAILABLE, UNKNOWN, UserState, Visit, advance_visit

OPEN = Visit("v1", NOW_MS, 2, True)
ENDED = Visit("v1", NOW_MS, 2, True, ended=True)


def parsed(**fields: Any) -> Event:
    return parse_event(record(event(event_id="e1", **fields)), NOW_MS, 10_000, "record")


@pytest.mark.parametrize(
    ("before", "fields", "after"),
    [
        pytest.param(None, {}, Visit("e1", NOW_MS, 0, False), id="a user without a visit starts one"),
        pytest.param(None, {"event_type": "pageview"}, Visit("e1", NOW_MS, 1, False), id="its page view counts"),
        pytest.param(None, {"is_first_event": True}, Visit("e1", NOW_MS, 0, True), id="the very first visit"),
        pytest.param(None, {"is_last_in_visit": True}, Visit("e1", NOW_MS, 0, False, True), id="a visit of one event"),
        pytest.param(OPEN, {}, OPEN, id="what is no page changes nothing"),
        pytest.param(OPEN, {"event_type": "pageview"}, Visit("v1", NOW_MS, 3, True), id="a page is counted"),
        pytest.param(OPEN, {"is_first_event": True}, OPEN, id="the first-visit flag is set at the start only"),
        pytest.param(OPEN, {"is_first_in_visit": True}, Visit("e1", NOW_MS, 0, False), id="first in visit starts one"),
        pytest.param(OPEN, {"is_last_in_visit": True}, ENDED, id="last in visit ends it"),
        pytest.param(
            OPEN,
            {"is_last_in_visit": True, "event_type": "pageview"},
            Visit("v1", NOW_MS, 3, True, True),
            id="the last page counts too",
        ),
        pytest.param(ENDED, {}, Visit("e1", NOW_MS, 0, False), id="after the last event a new visit starts"),
        pytest.param(
            OPEN, {"timestamp": NOW_MS - 1, "event_type": "pageview"}, OPEN, id="older than the visit: unchanged"
        ),
        pytest.param(
            OPEN, {"timestamp": NOW_MS - 1, "is_first_in_visit": True}, OPEN, id="an older visit does not come back"
        ),
        pytest.param(ENDED, {"timestamp": NOW_MS - 1}, ENDED, id="a late event of an ended visit"),
    ],
)
def test_visit(before: Visit | None, fields: dict[str, Any], after: Visit) -> None:
    assert advance_visit(before, parsed(**fields)) == after


def test_a_visit_shows_the_spec_fields_only() -> None:
    assert ENDED.public() == {"visit_id": "v1", "start_time": NOW_MS, "page_count": 2, "is_first_visit": True}


@pytest.mark.parametrize(
    ("enrichment", "shown"),
    [
        (FETCHED, {"country": "US"}),
        (UNKNOWN, {"country": "US", "enrichment": "unknown"}),
        (UNAVAILABLE, {"country": "US", "enrichment": "unavailable"}),
    ],
)
def test_a_profile_says_when_it_was_not_fetched(enrichment: str, shown: dict[str, Any]) -> None:
    assert UserState(0, enrichment, b'{"country":"US"}', None, History(3)).profile() == shown
