from __future__ import annotations

from typing import Any

import orjson
import pytest

from transforms.domain.events.record import Record
from transforms.domain.simulation.recordings import RecordingError, records_of

NOW_MS = 1_704_067_200_000


def read(*lines: Any) -> list[Record]:
    raw = [line if isinstance(line, bytes) else orjson.dumps(line) for line in lines]
    return list(records_of((line + b"\n" for line in raw), "file", NOW_MS))


def test_an_event_s_record_has_its_timestamp_its_user_as_key_and_its_bytes_unchanged() -> None:
    line = b'{"event_id": "e",  "user_id": "\xc3\xbc", "timestamp": 1704067100000, "x": 1.0}'
    assert read(line) == [Record(0, 1, 1_704_067_100_000, "ü".encode(), line)]


def test_the_line_number_is_the_offset_and_empty_lines_are_skipped() -> None:
    assert [record.offset for record in read(b"", {"timestamp": 1}, b"  ", {"timestamp": 2})] == [2, 4]


@pytest.mark.parametrize(
    "odd",
    [
        b"no json",
        b"\xff",
        b"[1]",
        b'"text"',
        {},
        {"timestamp": "soon"},
        {"timestamp": True},
        {"timestamp": 1.5},
        {"timestamp": 0},
        {"timestamp": -5},
        {"timestamp": NOW_MS // 1000},
        {"timestamp": NOW_MS + 86_400_001},
    ],
)
def test_a_line_without_a_usable_time_gets_the_time_of_the_line_before(odd: Any) -> None:
    raw = odd if isinstance(odd, bytes) else orjson.dumps(odd)
    assert read({"timestamp": NOW_MS - 5, "user_id": "u"}, odd)[1] == Record(0, 2, NOW_MS - 5, None, raw)


def test_a_byte_order_mark_at_the_beginning_is_not_read() -> None:
    line = orjson.dumps({"event_id": "e", "user_id": "u", "timestamp": NOW_MS})
    assert read(b"\xef\xbb\xbf" + line, line) == [Record(0, 1, NOW_MS, b"u", line), Record(0, 2, NOW_MS, b"u", line)]
    assert read(b"\xef\xbb\xbf") == []


def test_a_value_keeps_its_long_integers() -> None:
    (found,) = read(b'{"timestamp_ms": 7, "key": "k", "value": {"n": 18446744073709551616}}')
    assert found.value == b'{"n":18446744073709551616}'


def test_a_timestamp_a_day_ahead_is_accepted() -> None:
    assert read({"timestamp": NOW_MS + 86_400_000})[0].timestamp_ms == NOW_MS + 86_400_000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"timestamp_ms": 7, "key": "k", "value": {"a": 1}}, Record(0, 1, 7, b"k", b'{"a":1}')),
        ({"timestamp_ms": 7, "key": None, "value": {"user_id": "u"}}, Record(0, 1, 7, None, b'{"user_id":"u"}')),
        ({"timestamp_ms": 7, "value": {"user_id": "u"}}, Record(0, 1, 7, b"u", b'{"user_id":"u"}')),
        ({"timestamp_ms": 7, "key": "k", "value": "{not json"}, Record(0, 1, 7, b"k", b"{not json")),
        ({"timestamp_ms": 7, "value": None}, Record(0, 1, 7, None, b"null")),
    ],
)
def test_an_envelope_has_its_own_time(line: Any, expected: Record) -> None:
    assert read(line) == [expected]


def test_a_line_comes_no_earlier_than_the_one_above_it() -> None:
    lines = [
        {"timestamp": NOW_MS, "user_id": "u"},
        {"timestamp": NOW_MS - 86_400_000, "user_id": "u"},
        {"timestamp_ms": NOW_MS - 5, "value": {}},
        {"timestamp_ms": NOW_MS + 5, "value": {"timestamp": NOW_MS - 86_400_000}},
        {"timestamp": NOW_MS + 1, "user_id": "u"},
    ]
    assert [record.timestamp_ms - NOW_MS for record in read(*lines)] == [0, 0, 0, 5, 5]


def test_an_event_with_the_envelope_s_field_names_is_an_event() -> None:
    line = {"event_id": "e", "user_id": "u", "timestamp": NOW_MS - 3, "timestamp_ms": 9, "value": 4}
    assert read(line)[0].timestamp_ms == NOW_MS - 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"timestamp_ms": "7", "value": {}}, "file:2: timestamp_ms is '7', allowed: ms since the epoch"),
        ({"timestamp_ms": True, "value": {}}, "file:2: timestamp_ms is True, allowed: ms since the epoch"),
        ({"timestamp_ms": -1, "value": {}}, "file:2: timestamp_ms is -1, allowed: ms since the epoch"),
        ({"timestamp_ms": 1, "key": 5, "value": {}}, "file:2: key is 5, allowed: text or null"),
    ],
)
def test_an_invalid_envelope_ends_the_reading(line: Any, message: str) -> None:
    with pytest.raises(RecordingError) as caught:
        read({"timestamp": 1}, line)
    assert str(caught.value) == message
