from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS, event, record
from tests.oracle import DEFAULTS, Oracle
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.dead_letter import RejectedError
from transforms.domain.events.event import DEFAULT_MAX_EVENT_BYTES, MAX_DEPTH, MAX_FUTURE_MS, Event, parse_event
from transforms.domain.events.record import Record


def parse(value: dict[str, Any] | bytes, key: bytes | None = b"", user_key: str = "record") -> Event:
    return parse_event(record(value, key), NOW_MS, DEFAULT_MAX_EVENT_BYTES, user_key)


def rejection(value: dict[str, Any] | bytes, key: bytes | None = b"u1") -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        parse(value, key)
    return caught.value


def nested(levels: int) -> bytes:
    """An event that is ``levels`` levels deep."""
    inner = b"[" * (levels - 1) + b"]" * (levels - 1)
    return orjson.dumps(event())[:-1] + b',"deep":' + inner + b"}"


def test_a_complete_event_is_read_with_all_its_fields() -> None:
    fields = event(parameters={"utm_source": "google"}, duration=1.5, mood="unknown fields are kept")
    assert parse(fields) == Event(fields["event_id"], "u1", "page_view", NOW_MS, {**DEFAULTS, **fields}, NOW_MS)


def test_absent_fields_get_their_defaults() -> None:
    fields = event()
    assert parse(fields).fields == {**DEFAULTS, **fields}


@pytest.mark.parametrize("name", ["event_id", "user_id", "event_name", "timestamp"])
def test_an_event_without_a_required_field_is_rejected(name: str) -> None:
    fields = event()
    del fields[name]
    error = rejection(fields if name != "user_id" else orjson.dumps(fields))
    assert (error.reason, error.detail) == (reasons.MISSING_FIELD, f"{name} is missing")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("event_id", 1),
        ("event_id", None),
        ("user_id", 7),
        ("event_name", ["page_view"]),
        ("timestamp", "yesterday"),
        ("timestamp", True),
        ("timestamp", 1.5),
        ("timestamp", float(NOW_MS)),
        ("triggerable", 1),
        ("triggerable", "true"),
        ("is_first_in_visit", None),
        ("duration", True),
        ("duration", "1"),
        ("parameters", []),
        ("platform", 3),
    ],
)
def test_a_field_of_the_wrong_type_is_rejected_by_name(name: str, wrong: Any) -> None:
    error = rejection(orjson.dumps(event() | {name: wrong}))
    assert error.reason == reasons.WRONG_TYPE
    assert error.detail.startswith(f"{name} is a {type(wrong).__name__}, allowed is ")


@pytest.mark.parametrize("name", ["event_id", "user_id", "event_name"])
def test_an_empty_name_is_rejected(name: str) -> None:
    error = rejection(orjson.dumps(event() | {name: ""}))
    assert (error.reason, error.detail) == (reasons.OUT_OF_RANGE, f"{name} is empty")


@pytest.mark.parametrize("timestamp", [0, -1, NOW_MS + MAX_FUTURE_MS + 1, 2**53 + 1, 2**63])
def test_a_timestamp_out_of_range_is_rejected(timestamp: int) -> None:
    error = rejection(event(timestamp=timestamp))
    assert error.reason == reasons.OUT_OF_RANGE
    assert f"timestamp {timestamp}, allowed are 1 to {NOW_MS + MAX_FUTURE_MS}" in error.detail


@pytest.mark.parametrize("timestamp", [1, NOW_MS, NOW_MS + MAX_FUTURE_MS])
def test_a_timestamp_in_range_is_accepted(timestamp: int) -> None:
    assert parse(event(timestamp=timestamp)).timestamp_ms == timestamp


def test_the_size_limit_counts_bytes_and_includes_its_end() -> None:
    value = orjson.dumps(event(note="é" * 100))
    assert parse_event(Record(0, 0, 0, b"u1", value), NOW_MS, len(value), "record").user_id == "u1"
    with pytest.raises(RejectedError, match=f"too_large: {len(value)} bytes, allowed are {len(value) - 1}"):
        parse_event(Record(0, 0, 0, b"u1", value), NOW_MS, len(value) - 1, "record")


@pytest.mark.parametrize("key", [None, b"", b"u2", b"U1", b"u1\x00"])
def test_a_record_key_that_is_not_the_user_is_rejected(key: bytes | None) -> None:
    assert rejection(orjson.dumps(event()), key).reason == reasons.KEY_MISMATCH


def test_the_record_key_is_ignored_where_the_user_is_read_from_the_body() -> None:
    assert parse(orjson.dumps(event()), None, user_key="field").user_id == "u1"


def test_a_user_beyond_ascii_is_keyed_by_utf8() -> None:
    assert parse(event("üser😀")).user_id == "üser😀"


POISON: dict[str, tuple[bytes, str]] = {
    "empty value": (b"", reasons.NOT_JSON),
    "text": (b"hello", reasons.NOT_JSON),
    "cut off": (orjson.dumps(event())[:-1], reasons.NOT_JSON),
    "two documents": (orjson.dumps(event()) * 2, reasons.NOT_JSON),
    "byte order mark": (b"\xef\xbb\xbf" + orjson.dumps(event()), reasons.NOT_JSON),
    "UTF-16": (orjson.dumps(event()).decode().encode("utf-16"), reasons.NOT_JSON),
    "bad UTF-8": (orjson.dumps(event(note="é")).replace(b"\xc3\xa9", b"\xff"), reasons.NOT_JSON),
    "lone surrogate": (orjson.dumps(event(note="x")).replace(b'"x"', rb'"\ud800"'), reasons.NOT_JSON),
    "NaN": (orjson.dumps(event(duration=7)).replace(b":7", b":NaN"), reasons.NOT_JSON),
    "infinity": (orjson.dumps(event(duration=7)).replace(b":7", b":1e999"), reasons.NOT_JSON),
    "timestamp of 2^70": (orjson.dumps(event()).replace(b"%d" % NOW_MS, b"%d" % 2**70), reasons.WRONG_TYPE),
    "depth 10,000": (b"[" * 5000 + b"]" * 5000, reasons.NOT_JSON),
    "depth that only JSON readers allow": (nested(500), reasons.OUT_OF_RANGE),
    "one level too deep": (nested(MAX_DEPTH + 1), reasons.OUT_OF_RANGE),
    "list": (b"[]", reasons.NOT_AN_OBJECT),
    "null": (b"null", reasons.NOT_AN_OBJECT),
    "number": (b"1", reasons.NOT_AN_OBJECT),
    "string": (b'"{}"', reasons.NOT_AN_OBJECT),
    "no fields": (b"{}", reasons.MISSING_FIELD),
}


@pytest.mark.parametrize(("value", "reason"), POISON.values(), ids=POISON.keys())
def test_poison_is_rejected_with_its_reason(value: bytes, reason: str) -> None:
    assert rejection(value).reason == reason


@pytest.mark.parametrize("value", [value for value, _ in POISON.values()], ids=POISON.keys())
def test_the_oracle_agrees_on_poison(value: bytes) -> None:
    oracle = Oracle([])
    oracle.feed(b"u1", value)
    assert [letter.reason for letter in oracle.dead_letters] == [rejection(value).reason]


@pytest.mark.parametrize(
    "value",
    [
        nested(MAX_DEPTH),
        orjson.dumps(event(note="[" * 200)),
        orjson.dumps(event(huge=2**64 - 1)),
        b" " + orjson.dumps(event()),
    ],
    ids=["as deep as allowed", "brackets in text", "large number", "leading space"],
)
def test_strange_but_valid_events_are_accepted(value: bytes) -> None:
    assert parse(value, b"u1").user_id == "u1"


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_arbitrary_bytes_are_rejected(value: bytes) -> None:
    with pytest.raises(RejectedError):
        parse(value, b"u1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["event_id", "user_id", "timestamp", "duration", "parameters", "x"]), JSON))
def test_the_oracle_agrees_on_events_with_any_field_replaced(replaced: dict[str, Any]) -> None:
    value = json.dumps(event() | replaced).encode()
    oracle = Oracle([])
    oracle.feed(b"u1", value, NOW_MS)
    assert [letter.reason for letter in oracle.dead_letters] == rejections(value)


def rejections(value: bytes) -> list[str]:
    """The reason for which an event is rejected, nothing if it is valid."""
    try:
        parse(value, b"u1")
    except RejectedError as error:
        return [error.reason]
    return []
