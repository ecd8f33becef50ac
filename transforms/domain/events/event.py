"""User-tracking events: their schema (docs/spec/event-dispatch.md, "Raw Event JSON Schema") and their parser."""

from __future__ import annotations

import itertools
from operator import itemgetter
from typing import Any, Final

import msgspec
import orjson

from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.dead_letter import RejectedError
from transforms.domain.events.record import Record

REQUIRED: Final = ("event_id", "user_id", "event_name", "timestamp")

# The schema's optional fields. An event that lacks one gets the default, so that rules do not read nil.
DEFAULTS: Final[dict[str, Any]] = {
    "domain": "",
    "is_first_in_visit": False,
    "is_last_in_visit": False,
    "is_first_event": False,
    "is_current": True,
    "event_displayname": "",
    "integration": "",
    "app": "",
    "platform": "",
    "is_https": False,
    "event_type": "",
    "duration": 0,
    "triggerable": False,
    "parameters": {},
}

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("event_id", "user_id", "event_name"), (str,)),
    "timestamp": (int,),
    **{name: (int, float) if name == "duration" else (type(default),) for name, default in DEFAULTS.items()},
}
# Most events have every field with the right type: one lookup of the tuple of types proves it.
_all_fields = itemgetter(*_TYPES)
_COMPLETE: Final = frozenset(itertools.product(*_TYPES.values()))

# 2**53: the largest integer that both JSON readers and LuaJIT hold exactly.
MAX_SAFE_INTEGER: Final = 2**53
DEFAULT_MAX_EVENT_BYTES: Final = 10 * 1024
# orjson reads more than 250 levels but cannot write them.
MAX_DEPTH: Final = 100
# 2000-01-01: an earlier timestamp, such as -1 or 0, is none.
MIN_TIMESTAMP_MS: Final = 946_684_800_000
# A timestamp further ahead is wrong, and its event would stay the newest of the history for ever.
MAX_FUTURE_MS: Final = 24 * 3600 * 1000


class Event(msgspec.Struct, frozen=True, gc=False):
    """A valid event.

    Attributes:
        fields: the whole event with defaults filled in and unknown fields kept.
        received_ms: the record's Kafka time; the event's own timestamp where the record has no usable one.
    """

    event_id: str
    user_id: str
    event_name: str
    timestamp_ms: int
    fields: dict[str, Any]
    received_ms: int


def parse_event(record: Record, now_ms: int, max_event_bytes: int, user_key: str) -> Event:
    """Parse and validate an event.

    Args:
        record: the Kafka record; its value is JSON.
        now_ms: processing time, to refuse timestamps of the future.
        max_event_bytes: limit of the record's value.
        user_key: ``record`` if the record's key has to be the ``user_id``, otherwise ``field``.

    Raises:
        RejectedError: the record is not a valid event; the detail names the field, the value and what is allowed.
    """
    if len(record.value) > max_event_bytes:
        raise RejectedError(reasons.TOO_LARGE, f"{len(record.value)} bytes, allowed are {max_event_bytes}")
    try:
        fields = orjson.loads(record.value)
    except orjson.JSONDecodeError as error:
        raise RejectedError(reasons.NOT_JSON, str(error)) from None
    if type(fields) is not dict:
        raise RejectedError(reasons.NOT_AN_OBJECT, f"a JSON {type(fields).__name__}, allowed is an object")
    if not _is_complete(fields):
        _check_types(fields)
        fields = DEFAULTS | fields
    # Counting brackets is cheap: a value with fewer brackets than allowed levels cannot be too deep.
    if record.value.count(b"{") + record.value.count(b"[") > MAX_DEPTH and nested_deeper(fields, MAX_DEPTH):
        raise RejectedError(reasons.OUT_OF_RANGE, f"nested deeper than {MAX_DEPTH} levels")
    own_ms, record_ms = fields["timestamp"], record.timestamp_ms
    received_ms = record_ms if record_ms >= MIN_TIMESTAMP_MS else own_ms
    event = Event(fields["event_id"], fields["user_id"], fields["event_name"], own_ms, fields, received_ms)
    _check_values(event, now_ms)
    if user_key == "record" and record.key != event.user_id.encode():
        raise RejectedError(
            reasons.KEY_MISMATCH, f"record key {record.key!r}, user_id {event.user_id!r}: they must be equal"
        )
    return event


def nested_deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value has more than ``levels`` levels of objects and arrays."""
    inner = value.values() if type(value) is dict else value if type(value) is list else None
    if inner is None:
        return False
    return levels == 0 or any(nested_deeper(item, levels - 1) for item in inner)


def _is_complete(fields: dict[str, Any]) -> bool:
    try:
        return tuple(map(type, _all_fields(fields))) in _COMPLETE
    except KeyError:
        return False


def _check_types(fields: dict[str, Any]) -> None:
    for name in REQUIRED:
        if name not in fields:
            raise RejectedError(reasons.MISSING_FIELD, f"{name} is missing")
    for name, value in fields.items():
        allowed = _TYPES.get(name)
        # type() instead of isinstance(): True is an int in Python but not a number in JSON.
        if allowed is not None and type(value) not in allowed:
            names = " or ".join(kind.__name__ for kind in allowed)
            raise RejectedError(reasons.WRONG_TYPE, f"{name} is a {type(value).__name__}, allowed is {names}")


def _check_values(event: Event, now_ms: int) -> None:
    for name, text in (("event_id", event.event_id), ("user_id", event.user_id), ("event_name", event.event_name)):
        if not text:
            raise RejectedError(reasons.OUT_OF_RANGE, f"{name} is empty")
    latest = min(now_ms + MAX_FUTURE_MS, MAX_SAFE_INTEGER)
    if not 0 < event.timestamp_ms <= latest:
        raise RejectedError(reasons.OUT_OF_RANGE, f"timestamp {event.timestamp_ms}, allowed are 1 to {latest} (ms)")
