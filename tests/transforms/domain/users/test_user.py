from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS
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
from transforms.domain.users.visit import Visit


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
def test_profile_fields_are_a_part_of_the_profile(profile: dict[str, Any], names: list[str], enrichment: str) -> None:
    user = UserState(0, enrichment, orjson.dumps(profile), History(3))
    whole = user.profile()
    assert user.profile_fields(ProfileFields(names)) == {name: whole[name] for name in names if name in whole}


@pytest.mark.parametrize("value", ["US", 7, None, True, "x" * 1000, {"a": ["b"]}, [1]])
def test_profile_fields_are_those_of_the_latest_profile(value: Any) -> None:
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


def test_only_small_profile_fields_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, ...]] = []
    of = ProfileFields.of

    def recording_of(fields: ProfileFields, profile_json: bytes) -> dict[str, Any]:
        read.append(fields.names)
        return of(fields, profile_json)

    monkeypatch.setattr(ProfileFields, "of", recording_of)
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


@pytest.mark.parametrize(
    ("enrichment", "fetched_ms", "failed_ms", "max_age_ms", "due_at_ms"),
    [
        (FETCHED, 1000, 0, None, None),
        (UNKNOWN, 1000, 0, None, None),
        (FETCHED, 1000, 1600, None, None),
        (FETCHED, 1000, 0, 500, 1500),
        (UNKNOWN, 1000, 0, 500, 1500),
        (FETCHED, 1000, 1600, 500, 1700),  # failed at 1600
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
    user.visit, user.fetched_ms, user.failed_ms = Visit("v1", NOW_MS, 2, True), 5, 6
    user.history.add(Row(1, "e", "n", {"x": 1}, is_page=True))
    user.stream_since_ms, user.listed = 8, frozenset({"b", "a"})
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(user.pack("u1")), type=PackedUser)
    again = UserState.unpack(packed, 3)
    assert packed.user_id == "u1"
    for name in (
        "last_seen_ms",
        "enrichment",
        "profile_json",
        "visit",
        "fetched_ms",
        "failed_ms",
        "stream_since_ms",
        "listed",
    ):
        assert getattr(again, name) == getattr(user, name)
    assert again.history.rows() == user.history.rows()
