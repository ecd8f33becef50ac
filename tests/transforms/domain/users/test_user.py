from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS, event, record
from transforms.domain.events.event import Event, parse_event
from transforms.domain.users.history import History, Row
from transforms.domain.users.user import (
    FETCHED,
    PENDING,
    UNAVAILABLE,
    UNKNOWN,
    PackedUser,
    ProfileFields,
    UserState,
)
from transforms.domain.users.visit import Visit, advance_visit, join_visits

OPEN = Visit("v1", NOW_MS, 2, True)
ENDED = Visit("v1", NOW_MS, 2, True, ended=True)


def assumed(pages: int, first: bool, ended: bool = False) -> Visit:
    return Visit("e1", NOW_MS, pages, first, ended, assumed=True)


def parsed(**fields: Any) -> Event:
    return parse_event(record(event(event_id="e1", **fields)), NOW_MS, 10_000, "record")


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
        (PENDING, {"country": "US", "enrichment": "pending"}),
    ],
)
def test_a_profile_says_when_it_was_not_fetched(enrichment: str, shown: dict[str, Any]) -> None:
    assert UserState(0, enrichment, b'{"country":"US"}', History(3)).profile() == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "", "field_0", "a b", "ü", "enrichment"]) | st.text(max_size=3), JSON),
    st.lists(st.sampled_from(["a", "b", "", "field_0", "a b", "ü", "enrichment"]), unique=True),
    st.sampled_from([FETCHED, UNKNOWN, PENDING]),
)
def test_some_fields_of_a_profile_are_those_of_the_whole(
    profile: dict[str, Any], names: list[str], enrichment: str
) -> None:
    user = UserState(0, enrichment, orjson.dumps(profile), History(3))
    whole = user.profile()
    assert user.profile_fields(ProfileFields(names)) == {name: whole[name] for name in names if name in whole}


@pytest.mark.parametrize("value", ["US", 7, None, True, "x" * 1000, {"a": ["b"]}, [1]])
def test_fields_of_a_profile_are_those_of_the_one_that_came_last(value: Any) -> None:
    country, none = ProfileFields(["country", "enrichment"]), ProfileFields([])
    user = UserState(0, FETCHED, orjson.dumps({"country": value}), History(3))
    assert [user.profile_fields(fields) for fields in (country, country, none, country)] == [
        {"country": value},
        {"country": value},
        {},
        {"country": value},
    ]
    user.replace_profile(FETCHED, b'{"country":"DE"}')
    assert user.profile_fields(country) == {"country": "DE"}
    user.replace_profile(UNKNOWN, b"{}")
    assert user.profile_fields(country) == {"enrichment": UNKNOWN}


def test_only_a_little_is_kept_of_what_rules_read_of_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, ...]] = []
    of = ProfileFields.of

    def noted(fields: ProfileFields, profile_json: bytes) -> dict[str, Any]:
        read.append(fields.names)
        return of(fields, profile_json)

    monkeypatch.setattr(ProfileFields, "of", noted)
    many = {f"f{number}": number for number in range(11)}
    user = UserState(0, FETCHED, orjson.dumps({"long": "x" * 101, "list": [1], "short": "x" * 100, **many}), History(3))
    kept = []
    for names in (["short", "f1"], ["long"], ["list"], [*many]):
        fields = ProfileFields(names)
        for _ in range(3):
            user.profile_fields(fields)
        kept.append(len(read) == 1)
        read.clear()
    assert kept == [True, False, False, False]


LIVE = assumed(2, True, ended=True)


@pytest.mark.parametrize(
    ("known", "live", "after"),
    [
        pytest.param(OPEN, None, OPEN, id="nothing was handled yet"),
        pytest.param(None, LIVE, LIVE, id="the API knows of none"),
        pytest.param(OPEN, LIVE, Visit("v1", NOW_MS, 4, True, True), id="the pages of both, the end of the live one"),
        pytest.param(OPEN, Visit("e1", NOW_MS, 2, False), Visit("e1", NOW_MS, 2, False), id="a start that was seen"),
        pytest.param(Visit("v1", NOW_MS + 1, 2, True), LIVE, LIVE, id="the API's is newer"),
    ],
)
def test_an_assumed_visit_is_joined_to_the_one_the_api_knows(
    known: Visit | None, live: Visit | None, after: Visit | None
) -> None:
    assert join_visits(known, live) == after


@pytest.mark.parametrize(
    ("enrichment", "fetched_ms", "failed_ms", "max_age_ms", "due_at_ms"),
    [
        (FETCHED, 1000, 0, None, None),
        (UNKNOWN, 1000, 0, None, None),
        (FETCHED, 1000, 1600, None, None),
        (FETCHED, 1000, 0, 500, 1500),
        (UNKNOWN, 1000, 0, 500, 1500),
        (FETCHED, 1000, 1600, 500, 1700),  # asked in vain at 1600
        (FETCHED, 1000, 0, 10, 1010),
        (UNAVAILABLE, 0, 1000, None, 1100),
        (UNAVAILABLE, 0, 1000, 5000, 1100),
        (PENDING, 0, 1000, None, 0),
    ],
)
def test_when_a_profile_is_due(
    enrichment: str, fetched_ms: int, failed_ms: int, max_age_ms: int | None, due_at_ms: int | None
) -> None:
    user = UserState(0, enrichment, b"{}", History(3))
    user.fetched_ms, user.failed_ms = fetched_ms, failed_ms
    due = [now_ms for now_ms in range(3000) if user.is_due(now_ms, max_age_ms, 100)]
    assert due == ([] if due_at_ms is None else list(range(due_at_ms, 3000)))


def test_a_user_is_unpacked_as_it_was_packed() -> None:
    user = UserState(7, FETCHED, b'{"a":1}', History(3))
    user.visit, user.fetched_ms, user.failed_ms = OPEN, 5, 6
    user.history.add(Row(1, "e", "n", {"x": 1}))
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(user.pack("u1")), type=PackedUser)
    again = UserState.unpack(packed, 3)
    assert packed.user_id == "u1"
    for name in ("last_seen_ms", "enrichment", "profile_json", "visit", "fetched_ms", "failed_ms"):
        assert getattr(again, name) == getattr(user, name)
    assert again.history.rows() == user.history.rows()
