from __future__ import annotations

from typing import Any

import pytest

from tests.builders import NOW_MS, event, record
from transforms.domain.events.event import Event, EventLimits, parse_event
from transforms.domain.users.visit import Visit, advance_visit, join_visits

OPEN = Visit("v1", NOW_MS, 2, True)
ENDED = Visit("v1", NOW_MS, 2, True, ended=True)


def assumed(pages: int, first: bool, ended: bool = False) -> Visit:
    return Visit("e1", NOW_MS, pages, first, ended, assumed=True)


def parsed(**fields: Any) -> Event:
    return parse_event(record(event(event_id="e1", **fields)), NOW_MS, EventLimits())


@pytest.mark.parametrize(
    ("before", "fields", "after"),
    [
        pytest.param(None, {}, assumed(0, False), id="a user without a visit starts one"),
        pytest.param(None, {"event_type": "pageview"}, assumed(1, False), id="its page view counts"),
        pytest.param(None, {"is_first_event": True}, assumed(0, True), id="the very first visit"),
        pytest.param(None, {"is_last_in_visit": True}, assumed(0, False, ended=True), id="a visit of one event"),
        pytest.param(None, {"is_first_in_visit": True}, Visit("e1", NOW_MS, 0, False), id="its start was seen"),
        pytest.param(
            assumed(2, False),
            {"event_type": "pageview"},
            Visit("e1", NOW_MS, 3, False, assumed=True),
            id="an assumed visit goes on",
        ),
        pytest.param(OPEN, {}, OPEN, id="an event that is not a page view changes nothing"),
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
def test_an_event_advances_the_visit(before: Visit | None, fields: dict[str, Any], after: Visit) -> None:
    assert advance_visit(before, parsed(**fields)) == after


def test_a_visit_shows_the_spec_fields_only() -> None:
    assert ENDED.public() == {"visit_id": "v1", "start_time": NOW_MS, "page_count": 2, "is_first_visit": True}


LIVE = assumed(2, True, ended=True)


@pytest.mark.parametrize(
    ("known", "live", "after"),
    [
        pytest.param(OPEN, None, OPEN, id="nothing was handled yet"),
        pytest.param(None, LIVE, LIVE, id="the API knows no visit"),
        pytest.param(OPEN, LIVE, Visit("v1", NOW_MS, 4, True, True), id="the pages of both, the end of the live visit"),
        pytest.param(OPEN, Visit("e1", NOW_MS, 2, False), Visit("e1", NOW_MS, 2, False), id="a start that was seen"),
        pytest.param(Visit("v1", NOW_MS + 1, 2, True), LIVE, LIVE, id="the API's is newer"),
    ],
)
def test_an_assumed_visit_is_merged_with_the_user_api_s_visit(
    known: Visit | None, live: Visit | None, after: Visit | None
) -> None:
    assert join_visits(known, live) == after
