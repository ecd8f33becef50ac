"""Reads recordings of events: JSON Lines that become Kafka records with a time."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import orjson

from transforms.domain.base import exact_json
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.events.event import DAY_MS, MIN_TIMESTAMP_MS
from transforms.domain.events.record import Record

_ENVELOPE: Final = {"timestamp_ms", "key", "value"}


class RecordingError(EventTriggerError, ValueError):
    """A line of a recording that cannot be read; the message names file, line, the value and what is allowed."""


def records_of(lines: Iterable[bytes], name: str, now_ms: int) -> Iterator[Record]:
    """Yield a record for each line that is not empty; the line number is the offset.

    A line is an event, or ``{"timestamp_ms": …, "key": …, "value": {…}}``. An event's record has the event's
    ``timestamp`` and its user as the key. A line without a usable timestamp (missing, before 2000, more than a day
    after ``now_ms``, or not JSON) gets the time of the line before and becomes the same dead letter as in production.
    No record is older than the one before it: its time is when the line comes.

    Args:
        lines: the recording.
        name: the recording's name for messages.
        now_ms: the current time.

    Raises:
        RecordingError: ``timestamp_ms`` or ``key`` of the second form has a wrong value.
    """
    last_ms = 0
    for number, line in enumerate(lines, 1):
        # Editors and other programs begin a file with a byte order mark.
        line = line.removeprefix(BOM_UTF8 if number == 1 else b"").strip()
        if not line:
            continue
        record = _record_of(line, number, last_ms, now_ms + DAY_MS, f"{name}:{number}")
        if record.timestamp_ms < last_ms:
            record = msgspec.structs.replace(record, timestamp_ms=last_ms)
        last_ms = record.timestamp_ms
        yield record


def _record_of(line: bytes, number: int, last_ms: int, latest_ms: int, place: str) -> Record:
    try:
        document = exact_json.loads(line)
    except orjson.JSONDecodeError:
        return Record(0, number, last_ms, None, line)
    if not isinstance(document, dict):
        return Record(0, number, last_ms, None, line)
    if "timestamp_ms" in document and "value" in document and not document.keys() - _ENVELOPE:
        return _envelope_record(document, number, place)
    at_ms, user_id = document.get("timestamp"), document.get("user_id")
    if type(at_ms) is not int or not MIN_TIMESTAMP_MS <= at_ms <= latest_ms:
        at_ms = last_ms
    return Record(0, number, at_ms, user_id.encode() if isinstance(user_id, str) else None, line)


def _envelope_record(document: dict[str, Any], number: int, place: str) -> Record:
    at_ms, value = document["timestamp_ms"], document["value"]
    if type(at_ms) is not int or at_ms < 0:
        raise RecordingError(f"{place}: timestamp_ms is {at_ms!r}, allowed: ms since the epoch")
    user_id = value.get("user_id") if isinstance(value, dict) else None
    key = document.get("key", user_id if isinstance(user_id, str) else None)
    if key is not None and not isinstance(key, str):
        raise RecordingError(f"{place}: key is {key!r}, allowed: text or null")
    content = value.encode() if isinstance(value, str) else exact_json.dumps(value)
    return Record(0, number, at_ms, None if key is None else key.encode(), content)
