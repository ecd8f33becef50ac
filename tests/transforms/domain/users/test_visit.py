from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from tests.builders import NOW_MS, event, record
from transforms.domain.events.event import Event, EventLimits, parse_event
from transforms.domain.users.visit import Visit, advance_visit, filter_visit

OPEN = Visit("v1", NOW_MS, 2, True)
ENDED = Visit("v1", NOW_MS, 2, True, ended=True, end_ms=NOW_MS + 100)
NEXT = Visit("v2", NOW_MS + 150, 1, False, assumed=True, after_ms=NOW_MS + 100)
OF_API = Visit("v1", NOW_MS, 2, True, from_api=True)


def assumed(pages: int, first: bool, **fields: Any) -> Visit:
    return Visit("e1", NOW_MS, pages, first, assumed=True, **fields)


def parsed(at: int = 0, **fields: Any) -> Event:
    """An event ``at`` ms after NOW_MS."""
    made = {"event_id": "e1", "timestamp": NOW_MS + at} | fields
    received = msgspec.structs.replace(record(event(**made)), timestamp_ms=NOW_MS + max(at, 0))
    return parse_event(received, NOW_MS, EventLimits())


PAGE = {"event_type": "pageview"}
FIRST = {"is_first_in_visit": True}
LAST = {"is_last_in_visit": True}


@pytest.mark.parametrize(
    ("before", "at", "fields", "after"),
    [
        pytest.param(None, 0, {}, assumed(0, False), id="a user without a visit starts one"),
        pytest.param(None, 0, PAGE, assumed(1, False), id="its page view counts"),
        pytest.param(None, 0, {"is_first_event": True}, assumed(0, True), id="the very first visit"),
        pytest.param(None, 0, LAST, assumed(0, False, ended=True, end_ms=NOW_MS), id="a visit of one event"),
        pytest.param(None, 0, FIRST, Visit("e1", NOW_MS, 0, False), id="its start was seen"),
        pytest.param(assumed(2, False), 0, PAGE, assumed(3, False), id="an assumed visit goes on"),
        pytest.param(OPEN, 0, {}, OPEN, id="an event that is not a page view changes nothing"),
        pytest.param(OPEN, 0, PAGE, Visit("v1", NOW_MS, 3, True), id="a page is counted"),
        pytest.param(OPEN, 0, {"is_first_event": True}, OPEN, id="the first-visit flag is set at the start only"),
        pytest.param(OPEN, 0, FIRST, Visit("e1", NOW_MS, 0, False), id="first in visit starts one"),
        pytest.param(OPEN, 100, LAST, ENDED, id="last in visit ends it"),
        pytest.param(
            OPEN,
            0,
            LAST | PAGE,
            Visit("v1", NOW_MS, 3, True, ended=True, end_ms=NOW_MS),
            id="the last page counts too",
        ),
        pytest.param(
            ENDED,
            100,
            {},
            Visit("e1", NOW_MS + 100, 0, False, assumed=True, after_ms=NOW_MS + 100),
            id="an event at its end starts the next, which did not begin earlier",
        ),
        pytest.param(ENDED, 100, FIRST, Visit("e1", NOW_MS + 100, 0, False), id="the next whose start is seen"),
        pytest.param(ENDED, 99, {}, ENDED, id="an event before its end does not start the next"),
        pytest.param(ENDED, 99, FIRST, ENDED, id="not even the first in a visit"),
        pytest.param(
            ENDED, 99, PAGE, Visit("v1", NOW_MS, 3, True, ended=True, end_ms=NOW_MS + 100), id="its page counts"
        ),
        pytest.param(ENDED, 99, LAST, ENDED, id="a last event before the end"),
        pytest.param(ENDED, -1, PAGE, ENDED, id="older than an ended visit: unchanged"),
        pytest.param(ENDED, -1, FIRST | PAGE, ENDED, id="older and first"),
        pytest.param(OPEN, -1, PAGE, OPEN, id="older than the visit: unchanged"),
        pytest.param(OPEN, -1, LAST, OPEN, id="the end of an older visit"),
        pytest.param(OPEN, -1, FIRST, OPEN, id="an older visit does not come back"),
        pytest.param(
            Visit("v0", NOW_MS, 2, True, ended=True),
            0,
            {},
            Visit("e1", NOW_MS, 0, False, assumed=True, after_ms=NOW_MS),
            id="an end that an earlier release saw is not known",
        ),
        pytest.param(
            assumed(2, False),
            -9,
            {"event_id": "e0", "is_first_event": True} | FIRST | PAGE,
            Visit("e0", NOW_MS - 9, 3, True),
            id="the start that an assumed visit turns out to have had",
        ),
        pytest.param(assumed(2, False), -9, PAGE, assumed(2, False), id="an older event need not be of it"),
        pytest.param(assumed(2, False), -9, FIRST | LAST, assumed(2, False), id="an older visit of one event"),
        pytest.param(
            assumed(0, False, ended=True, end_ms=NOW_MS),
            -9,
            FIRST | {"event_id": "e0"},
            Visit("e0", NOW_MS - 9, 0, False, ended=True, end_ms=NOW_MS),
            id="the last event came before the first",
        ),
        pytest.param(
            NEXT,
            100,
            PAGE,
            Visit("e1", NOW_MS + 100, 2, False, assumed=True, after_ms=NOW_MS + 100),
            id="the earliest event after the visit before starts the next",
        ),
        pytest.param(
            NEXT, 120, FIRST, Visit("e1", NOW_MS + 120, 1, False, after_ms=NOW_MS + 100), id="its first event"
        ),
        pytest.param(NEXT, 99, FIRST | PAGE, NEXT, id="an event of the visit before"),
    ],
)
def test_an_event_advances_the_visit(before: Visit | None, at: int, fields: dict[str, Any], after: Visit) -> None:
    assert advance_visit(before, parsed(at, **fields)) == after


def test_a_page_that_the_api_had_counted_is_not_counted_again_in_its_visit() -> None:
    assert advance_visit(OF_API, parsed(**PAGE), is_listed=True) == OF_API
    assert advance_visit(OF_API, parsed(**PAGE)).page_count == 3
    assert advance_visit(OPEN, parsed(**PAGE), is_listed=True).page_count == 3
    assert advance_visit(OF_API, parsed(**PAGE, **FIRST), is_listed=True).page_count == 1
    ended = advance_visit(OF_API, parsed(7, **PAGE, **LAST), is_listed=True)
    assert (ended.page_count, ended.end_ms) == (2, NOW_MS + 7)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_a_visit_has_the_same_start_pages_and_end_in_whatever_order_its_events_come(order: tuple[int, ...]) -> None:
    events = [
        parsed(10, event_id="a", **PAGE, **FIRST),
        parsed(20, event_id="b", **PAGE),
        parsed(30, event_id="c", **PAGE),
        parsed(40, event_id="d", **PAGE, **LAST),
    ]
    visit = Visit("v0", NOW_MS, 1, True, ended=True, end_ms=NOW_MS + 5)
    for number in order:
        visit = advance_visit(visit, events[number])
    wanted = Visit("a", NOW_MS + 10, 4, False, ended=True, end_ms=NOW_MS + 40)
    assert msgspec.structs.replace(visit, after_ms=0) == wanted


def test_filters_see_an_empty_visit_where_an_event_belongs_to_none() -> None:
    assert filter_visit(OPEN, parsed(-1)) == OPEN.public()
    nothing = {"visit_id": "", "start_time": NOW_MS - 1, "page_count": 0, "is_first_visit": False}
    assert filter_visit(None, parsed(-1)) == nothing


def test_a_visit_shows_the_spec_fields_only() -> None:
    assert ENDED.public() == {"visit_id": "v1", "start_time": NOW_MS, "page_count": 2, "is_first_visit": True}
