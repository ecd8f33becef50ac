from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS, event, record
from tests.oracle import DEFAULTS, Oracle
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events import event as event_module
from transforms.domain.events.dead_letter import RejectedError
from transforms.domain.events.event import (
    DAY_MS,
    MAX_DEPTH,
    MAX_TIMESTAMP_MS,
    MIN_TIMESTAMP_MS,
    Event,
    EventLimits,
    KnownFields,
    parse_event,
    with_exact_integers,
)
from transforms.domain.events.record import Record


def parse(value: dict[str, Any] | bytes, key: bytes | None = b"", user_key: str = "record") -> Event:
    return parse_event(record(value, key), NOW_MS, EventLimits(user_key=user_key))


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
    parsed = parse(fields)
    ids = (parsed.event_id, parsed.user_id, parsed.event_name)
    assert (*ids, parsed.timestamp_ms, parsed.received_ms) == (fields["event_id"], "u1", "page_view", NOW_MS, NOW_MS)
    assert parsed.fields == {**DEFAULTS, **fields}


def test_absent_fields_get_their_defaults() -> None:
    fields = event()
    assert parse(fields).fields == {**DEFAULTS, **fields}


@pytest.mark.parametrize("name", DEFAULTS)
def test_null_in_an_optional_field_is_its_default(name: str) -> None:
    fields = event(**{name: None}, mood=None)
    assert parse(fields).fields == {**DEFAULTS, **fields, name: DEFAULTS[name]}


@pytest.mark.parametrize("name", ["event_id", "user_id", "event_name", "timestamp"])
def test_null_in_a_required_field_is_rejected(name: str) -> None:
    error = rejection(orjson.dumps(event() | {name: None}))
    assert (error.reason, error.detail.split(",")[0]) == (reasons.WRONG_TYPE, f"{name} is a NoneType")


@pytest.mark.parametrize("written", [b"1704067200000.0", b"1.7040672e12", b"17040672E+5", b"1704067200000.000e0"])
def test_a_whole_number_is_a_timestamp_however_it_is_written(written: bytes) -> None:
    parsed = parse(orjson.dumps(event()).replace(b"%d" % NOW_MS, written), b"u1")
    assert (parsed.timestamp_ms, orjson.dumps(parsed.fields["timestamp"])) == (NOW_MS, b"%d" % NOW_MS)


@pytest.mark.parametrize("written", [b"5.0", b"0.25", b"-3", b"1e300", b"%d" % 2**70])
def test_a_duration_is_any_number(written: bytes) -> None:
    value = orjson.dumps(event(duration=7)).replace(b":7}", b":%s}" % written)
    assert float(parse(value, b"u1").fields["duration"]) == float(written)


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
        ("triggerable", 1),
        ("triggerable", "true"),
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


def received(timestamp: int, record_ms: int, now_ms: int = NOW_MS, **limits: int) -> Event:
    """The event with this timestamp, of a record with this Kafka time."""
    value = orjson.dumps(event(timestamp=timestamp))
    return parse_event(Record(0, 0, record_ms, b"u1", value), now_ms, EventLimits(**limits))


def refusal(timestamp: int, record_ms: int = NOW_MS, now_ms: int = NOW_MS, **limits: int) -> str:
    with pytest.raises(RejectedError) as caught:
        received(timestamp, record_ms, now_ms, **limits)
    assert caught.value.reason == reasons.OUT_OF_RANGE
    return caught.value.detail


SECONDS = NOW_MS // 1000


@pytest.mark.parametrize(
    ("timestamp", "why"),
    [
        (0, "is before 2000-01-01T00:00:00.000Z"),
        (-1, "is before 2000-01-01T00:00:00.000Z"),
        (-(2**63), "is before 2000-01-01T00:00:00.000Z"),
        (MIN_TIMESTAMP_MS - 1, "is before 2000-01-01T00:00:00.000Z"),
        (SECONDS, "is before 2000-01-01T00:00:00.000Z"),
        (NOW_MS + DAY_MS + 1, "is more than 86400 s ahead of its record's Kafka time, 2024-01-01T00:00:00.000Z"),
        (2**53, "is more than 86400 s ahead of its record's Kafka time, 2024-01-01T00:00:00.000Z"),
        (2**64 - 1, "is more than 86400 s ahead of its record's Kafka time, 2024-01-01T00:00:00.000Z"),
    ],
)
def test_a_timestamp_that_cannot_be_one_is_rejected_with_what_is_allowed(timestamp: int, why: str) -> None:
    allowed = f"allowed are {MIN_TIMESTAMP_MS} to {NOW_MS + DAY_MS}, ms since 1970"
    assert refusal(timestamp).startswith(f"timestamp {timestamp} {why}, {allowed}")


@pytest.mark.parametrize(
    ("timestamp", "unit"),
    [
        (SECONDS, "seconds"),
        (MIN_TIMESTAMP_MS // 1000, "seconds"),
        (NOW_MS * 1000 + 999, "microseconds"),
        (NOW_MS * 10**6 + 999, "nanoseconds"),
    ],
)
@pytest.mark.parametrize("record_ms", [NOW_MS, -1, NOW_MS + 365 * DAY_MS])
def test_a_timestamp_in_another_unit_is_told_so(timestamp: int, unit: str, record_ms: int) -> None:
    when = "2000-01-01" if timestamp == MIN_TIMESTAMP_MS // 1000 else "2024-01-01"
    assert refusal(timestamp, record_ms).endswith(f"; it looks like {unit}: {when}T00:00:00.000Z")


@pytest.mark.parametrize("timestamp", [1, -SECONDS, NOW_MS + 30 * DAY_MS, NOW_MS * 10**5, 2**64 - 1])
def test_no_unit_is_guessed_where_none_fits(timestamp: int) -> None:
    assert "looks like" not in refusal(timestamp)


@pytest.mark.parametrize("timestamp", [MIN_TIMESTAMP_MS, NOW_MS - 1, NOW_MS])
def test_a_timestamp_before_the_record_s_kafka_time_is_the_event_s_time(timestamp: int) -> None:
    parsed = received(timestamp, NOW_MS)
    assert (parsed.timestamp_ms, parsed.received_ms) == (timestamp, NOW_MS)


@pytest.mark.parametrize("lead_ms", [1, DAY_MS])
def test_a_small_lead_counts_as_the_record_s_time_and_the_event_stays_as_it_is(lead_ms: int) -> None:
    parsed = received(NOW_MS + lead_ms, NOW_MS)
    assert (parsed.timestamp_ms, parsed.received_ms) == (NOW_MS, NOW_MS)
    assert parsed.fields["timestamp"] == NOW_MS + lead_ms


@pytest.mark.parametrize("record_ms", [-1, 0, SECONDS, MIN_TIMESTAMP_MS - 1])
@pytest.mark.parametrize("timestamp", [MIN_TIMESTAMP_MS, NOW_MS, NOW_MS + 400 * DAY_MS, MAX_TIMESTAMP_MS])
def test_an_event_of_a_record_without_a_usable_time_has_its_own(timestamp: int, record_ms: int) -> None:
    parsed = received(timestamp, record_ms)
    assert (parsed.timestamp_ms, parsed.received_ms) == (timestamp, timestamp)
    assert refusal(MAX_TIMESTAMP_MS + 1, record_ms).startswith(
        f"timestamp {MAX_TIMESTAMP_MS + 1} is after 3000-01-01T00:00:00.000Z"
    )


@pytest.mark.parametrize("record_ms", [NOW_MS + DAY_MS + 1, NOW_MS * 1000, 2**63 - 1])
def test_a_record_s_time_far_ahead_of_the_clock_is_not_usable_and_lets_no_event_in(record_ms: int) -> None:
    parsed = received(NOW_MS, record_ms)
    assert (parsed.timestamp_ms, parsed.received_ms) == (NOW_MS, NOW_MS)
    assert "is more than 86400 s ahead of the clock, 2024-01-01T00:00:00.000Z" in refusal(
        NOW_MS + DAY_MS + 1, record_ms
    )


def test_both_limits_of_timestamps_are_settings() -> None:
    assert received(5, NOW_MS, min_timestamp_ms=5).timestamp_ms == 5
    assert "is before 2023-01-01" in refusal(NOW_MS - 366 * DAY_MS, min_timestamp_ms=NOW_MS - 365 * DAY_MS)
    assert received(NOW_MS + 9000, NOW_MS, max_lead_ms=9000).timestamp_ms == NOW_MS
    assert "is more than 9 s ahead of its record's Kafka time" in refusal(NOW_MS + 9001, max_lead_ms=9000)


TIMES = st.sampled_from([-1, 0, SECONDS, MIN_TIMESTAMP_MS, NOW_MS, NOW_MS + DAY_MS, MAX_TIMESTAMP_MS]).flatmap(
    lambda at_ms: st.integers(at_ms - 2, at_ms + 2)
)


@given(TIMES, TIMES)
def test_the_oracle_agrees_on_times(timestamp: int, record_ms: int) -> None:
    value = orjson.dumps(event(timestamp=timestamp))
    oracle = Oracle([])
    oracle.feed(b"u1", value, NOW_MS, record_ms)
    if oracle.dead_letters:
        refusal(timestamp, record_ms)
    else:
        assert received(timestamp, record_ms).timestamp_ms == oracle.state("u1")["eventHistory"][0]["timestamp"]


def test_the_size_limit_counts_bytes_and_includes_its_end() -> None:
    value = orjson.dumps(event(note="é" * 100))
    assert parse_event(Record(0, 0, NOW_MS, b"u1", value), NOW_MS, EventLimits(len(value))).user_id == "u1"
    with pytest.raises(RejectedError, match=f"too_large: {len(value)} bytes, allowed are {len(value) - 1}"):
        parse_event(Record(0, 0, NOW_MS, b"u1", value), NOW_MS, EventLimits(len(value) - 1))


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
    "timestamp of 2^70": (orjson.dumps(event()).replace(b"%d" % NOW_MS, b"%d" % 2**70), reasons.OUT_OF_RANGE),
    "timestamp of 5000 digits": (orjson.dumps(event()).replace(b"%d" % NOW_MS, b"9" * 5000), reasons.OUT_OF_RANGE),
    "timestamp of 1e300": (orjson.dumps(event()).replace(b"%d" % NOW_MS, b"1e300"), reasons.OUT_OF_RANGE),
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


def test_a_byte_order_mark_is_named() -> None:
    error = rejection(b"\xef\xbb\xbf" + orjson.dumps(event()))
    assert (error.reason, error.detail) == (reasons.NOT_JSON, "begins with a byte order mark, allowed is none")


@pytest.mark.parametrize("value", [value for value, _ in POISON.values()], ids=POISON.keys())
def test_the_oracle_agrees_on_poison(value: bytes) -> None:
    oracle = Oracle([])
    oracle.feed(b"u1", value, NOW_MS, NOW_MS)
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
    oracle.feed(b"u1", value, NOW_MS, NOW_MS)
    assert [letter.reason for letter in oracle.dead_letters] == rejections(value)


def rejections(value: bytes) -> list[str]:
    """The reason for which an event is rejected, nothing if it is valid."""
    try:
        parse(value, b"u1")
    except RejectedError as error:
        return [error.reason]
    return []


# A complete event, in pieces that a test replaces: keys, values and what is between them.
PIECES = re.findall(rb'"[^"]*"|[0-9]+|[a-z]+|[{}:,]', orjson.dumps({**event(), **DEFAULTS, "parameters": {"a": 1}}))
ODD = [
    *(
        b"0",
        b"-0",
        b"01",
        b"1.0",
        b"1.5",
        b"1e3",
        b"1E+5",
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"1e308",
        b"1.8e308",
        b"NaN",
    ),
    *(b"%d" % (sign * (2**bits + more)) for bits in (53, 63, 64, 70, 200) for more in (-1, 0, 1) for sign in (1, -1)),
    *(b"9" * 25, b"9" * 308, b"9" * 309, b"-" + b"9" * 400, b"9" * 5000, b"1" * 210 + b"e99", b"%d.0" % NOW_MS),
    *(b"null", b"true", b"false", b"{}", b"[]", b"[1,2]", b'{"user_id":"u2"}', b'{"a":null,"a":1e999}', b"[" * 120),
    *(b'""', b'"\xc3\xa9"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'"\x00"', b'"\t"'),
    *(
        rb'"\ud800"',
        rb'"\udc00\ud800"',
        rb'"\ud83d\ude00"',
        rb'"\u0000"',
        rb'"\u0075ser_id"',
        rb'"\/"',
        rb'"\x41"',
        b'"\\',
    ),
    *(
        b'"user_id"',
        b'"user_id":"u2"',
        b'"user_id":"u2","user_id"',
        b'"mood"',
        b'"mood":1,',
        b'"duration":null,"duration"',
    ),
    *(b"\xef\xbb\xbf", b" ", b"\n", b"\x0b", b"\xa0", b",", b"}", b"{", b"]", b"", b"//", b"\x00"),
]
REPLACED = st.lists(
    st.tuples(st.integers(0, len(PIECES) - 1), st.sampled_from(ODD) | st.binary(max_size=3)), min_size=0, max_size=3
)


def read_as(value: bytes, *, strictly: bool) -> object:
    """What ``parse_event`` makes of an event, or why it rejects it; ``strictly``: nothing is usual."""
    read = Record(0, 0, NOW_MS, b"u1", value)
    with pytest.MonkeyPatch.context() as patch:
        if strictly:
            patch.setattr(event_module, "_usual_fields", lambda _: None)
        try:
            parsed = parse_event(read, NOW_MS, EventLimits(user_key="field"))
        except RejectedError as rejected:
            return rejected.reason, rejected.detail
    exact = with_exact_integers(parsed).fields
    known = {name: getattr(parsed.known, name) for name in DEFAULTS if name != "parameters"}
    times = (parsed.timestamp_ms, parsed.received_ms, parsed.known.timestamp)
    # Written out, as the order of the fields and the digits of numbers count, too.
    return parsed.event_id, parsed.user_id, parsed.event_name, times, known, repr(parsed.fields), repr(exact)


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_value_is_read_as_the_strict_way_reads_it_wherever_it_stands(odd: bytes) -> None:
    for number in range(len(PIECES)):
        value = b"".join([*PIECES[:number], odd, *PIECES[number + 1 :]])
        assert read_as(value, strictly=False) == read_as(value, strictly=True), value


@given(REPLACED, st.booleans())
def test_hostile_bytes_are_read_as_the_strict_way_reads_them(replaced: list[tuple[int, bytes]], grows: bool) -> None:
    pieces = list(PIECES)
    for number, odd in replaced:
        pieces[number] = pieces[number] + odd if grows else odd
    value = b"".join(pieces)
    assert read_as(value, strictly=False) == read_as(value, strictly=True)


def test_usual_events_are_read_the_short_way() -> None:
    usual = [event(), event(app="é😀"), {**event(), **DEFAULTS}]
    assert all(event_module._usual_fields(orjson.dumps(fields)) for fields in usual)
    assert event_module._usual_fields(orjson.dumps(event(mood="unknown"))) is None


def test_the_known_fields_are_the_schema_s() -> None:
    known = KnownFields("e", "u", "n", 1)
    assert {name: getattr(known, name) for name in event_module.DEFAULTS} == event_module.DEFAULTS
    assert KnownFields.__struct_fields__ == (*event_module.REQUIRED, *event_module.DEFAULTS)
