"""User-tracking events: their schema (docs/spec/event-dispatch.md, "Raw Event JSON Schema") and their parser."""

from __future__ import annotations

import itertools
import json
import re
from codecs import BOM_UTF8
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import msgspec
import orjson

from transforms.domain.base import exact_json
from transforms.domain.base.calendar import rfc_3339
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
_COMPLETE: Final = tuple(itertools.product(*_TYPES.values()))

# 2**53: the largest integer that both JSON readers and LuaJIT hold exactly.
MAX_SAFE_INTEGER: Final = 2**53
DEFAULT_MAX_EVENT_BYTES: Final = 10 * 1024
# orjson reads more than 250 levels but cannot write them.
MAX_DEPTH: Final = 100
# 2000-01-01: an earlier time of a record, such as -1 or 0, is none.
MIN_TIMESTAMP_MS: Final = 946_684_800_000
# 3000-01-01: calendars can still add a month to it, and microseconds since 1970 are far above it.
MAX_TIMESTAMP_MS: Final = 32_503_680_000_000
DAY_MS: Final = 24 * 3600 * 1000
# What producers send instead of milliseconds, and how many of it a millisecond is.
_UNITS: Final = (("seconds", 1e-3), ("microseconds", 1e3), ("nanoseconds", 1e6))
# An escape of an ASCII letter or underscore, as in "user\\u005fid".
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")
# Objects as lists of pairs. Numbers do not matter, and Python refuses to read the longest.
_pairs_decoder: Final = json.JSONDecoder(object_pairs_hook=list, parse_int=len, parse_float=len)


@dataclass(frozen=True, slots=True)
class EventLimits:
    """What an event must be like.

    Attributes:
        max_event_bytes: limit of the record's value.
        user_key: ``record`` if the record's key has to be the ``user_id``, otherwise ``field``.
        min_timestamp_ms: an earlier timestamp cannot be one.
        max_lead_ms: a timestamp further ahead of the record's Kafka time cannot be one: its event would stay the newest
            of the history, and the last firing of a cap.
    """

    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    user_key: str = "record"
    min_timestamp_ms: int = MIN_TIMESTAMP_MS
    max_lead_ms: int = DAY_MS


class KnownFields(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The schema's fields of an event, with the defaults of ``DEFAULTS``; a ``duration`` is the nearest double."""

    event_id: str
    user_id: str
    event_name: str
    timestamp: int
    domain: str = ""
    is_first_in_visit: bool = False
    is_last_in_visit: bool = False
    is_first_event: bool = False
    is_current: bool = True
    event_displayname: str = ""
    integration: str = ""
    app: str = ""
    platform: str = ""
    is_https: bool = False
    event_type: str = ""
    duration: float = 0
    triggerable: bool = False
    parameters: dict[str, Any] = {}


_known_decoder: Final = msgspec.json.Decoder(KnownFields)


class Event(msgspec.Struct, gc=False, eq=False):
    """A valid event.

    Attributes:
        timestamp_ms: the event's time where order matters: its own timestamp, at most ``received_ms``.
        received_ms: the record's Kafka time; the event's own timestamp where the record has no usable one.
        known: the fields of the schema, for who reads single ones: ``fields`` would decode all of the event.
        value: the record's value, which is JSON.
    """

    event_id: str
    user_id: str
    event_name: str
    timestamp_ms: int
    received_ms: int
    known: KnownFields
    value: bytes
    _fields: dict[str, Any] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The whole event with defaults filled in and unknown fields kept; ``timestamp`` is the event's own.

        Integers beyond 64 bits are floats (``with_exact_integers``).
        """
        if self._fields is None:
            self._fields = _completed(_decoded(self.value))
        return self._fields


def parse_event(record: Record, now_ms: int, limits: EventLimits) -> Event:
    """Parse and validate an event.

    Args:
        record: the Kafka record; its value is JSON.
        now_ms: processing time; a record's Kafka time is not usable if it is ahead of this by more than the limit.
        limits: what is allowed.

    Raises:
        RejectedError: the record is not a valid event; the detail names the field, the value and what is allowed.
    """
    value = record.value
    if len(value) > limits.max_event_bytes:
        raise RejectedError(reasons.TOO_LARGE, f"{len(value)} bytes, allowed are {limits.max_event_bytes}")
    known, fields = _usual_fields(value), None
    if known is None:
        fields = _checked_fields(value)
        known = KnownFields(**{name: fields[name] for name in _TYPES} | {"duration": float(fields["duration"])})
    event_id, user_id, event_name, own_ms = known.event_id, known.user_id, known.event_name, known.timestamp
    if not (event_id and user_id and event_name):
        empty = next(name for name in REQUIRED if not getattr(known, name))
        raise RejectedError(reasons.OUT_OF_RANGE, f"{empty} is empty")
    received_ms = record.timestamp_ms
    latest_ms = now_ms + limits.max_lead_ms
    if not (limits.min_timestamp_ms <= own_ms <= received_ms <= latest_ms and received_ms >= MIN_TIMESTAMP_MS):
        received_ms = _received_ms(own_ms, received_ms, now_ms, limits)
    if limits.user_key == "record" and record.key != user_id.encode():
        raise RejectedError(reasons.KEY_MISMATCH, f"record key {record.key!r}, user_id {user_id!r}: they must be equal")
    at_ms = own_ms if own_ms < received_ms else received_ms
    return Event(event_id, user_id, event_name, at_ms, received_ms, known, value, fields)


def _usual_fields(value: bytes) -> KnownFields | None:
    """Decode an event that has the schema's fields only, each of its type; None: ``_checked_fields`` has to tell.

    msgspec decodes each part of such an event. Of what it skips it would check neither UTF-8 nor the range of numbers.
    """
    # Finding the first and the last is cheaper than counting. Without a backslash a name has one spelling.
    is_named_once = value.find(b"user_id") == value.rfind(b"user_id")
    if not is_named_once or (value.find(b"\\") >= 0 and _ESCAPED_LETTER.search(value)) or _may_be_deep(value):
        return None
    try:
        known = _known_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # Only exact: what is said of a timestamp beyond that has its digits.
    return known if -MAX_SAFE_INTEGER <= known.timestamp <= MAX_SAFE_INTEGER else None


def _checked_fields(value: bytes) -> dict[str, Any]:
    """Decode an event of any kind; defaults are filled in.

    Raises:
        RejectedError: see ``parse_event``.
    """
    fields = _decoded(value)
    if type(fields) is not dict:
        raise RejectedError(reasons.NOT_AN_OBJECT, f"a JSON {type(fields).__name__}, allowed is an object")
    fields = _completed(fields)
    if is_too_deep(value, fields):
        raise RejectedError(reasons.OUT_OF_RANGE, f"nested deeper than {MAX_DEPTH} levels")
    if _has_two_user_ids(value, fields):
        raise RejectedError(reasons.DUPLICATE_USER_ID, "user_id stands twice in the object, allowed is once")
    return fields


def _has_two_user_ids(value: bytes, fields: dict[str, Any]) -> bool:
    """Whether an event's bytes have a second top-level ``user_id``; ``fields`` has the last of them."""
    # Parsing drops the first of two, so that fewer are written again. Only an escaped letter could hide that.
    named = value.count(b"user_id")
    if _ESCAPED_LETTER.search(value) is None and (named == 1 or exact_json.dumps(fields).count(b"user_id") == named):
        return False
    try:
        pairs: list[tuple[str, Any]] = _pairs_decoder.decode(value.decode())
    except RecursionError:  # in a value that parsing dropped
        raise RejectedError(reasons.OUT_OF_RANGE, f"nested deeper than {MAX_DEPTH} levels") from None
    return sum(name == "user_id" for name, _ in pairs) > 1


def _received_ms(own_ms: int, record_ms: int, now_ms: int, limits: EventLimits) -> int:
    """Return the record's Kafka time, or the event's timestamp where the record has no usable one.

    Raises:
        RejectedError: the event's timestamp cannot be one.
    """
    # A machine whose own clock is before 2000 cannot tell what is in the future.
    clock_ms = now_ms if now_ms >= MIN_TIMESTAMP_MS else MAX_TIMESTAMP_MS
    is_usable = MIN_TIMESTAMP_MS <= record_ms <= clock_ms + limits.max_lead_ms
    latest_ms = MAX_TIMESTAMP_MS
    if record_ms >= MIN_TIMESTAMP_MS:
        latest_ms = min(latest_ms, (record_ms if is_usable else clock_ms) + limits.max_lead_ms)
    if limits.min_timestamp_ms <= own_ms <= latest_ms:
        return record_ms if is_usable else own_ms
    if own_ms < limits.min_timestamp_ms:
        problem = f"is before {rfc_3339(limits.min_timestamp_ms)}"
    elif latest_ms == MAX_TIMESTAMP_MS:
        problem = f"is after {rfc_3339(latest_ms)}"
    else:
        problem = f"is more than {limits.max_lead_ms // 1000} s ahead of "
        problem += (
            f"its record's Kafka time, {rfc_3339(record_ms)}" if is_usable else f"the clock, {rfc_3339(clock_ms)}"
        )
    allowed = f"allowed are {limits.min_timestamp_ms} to {latest_ms}, ms since 1970"
    raise RejectedError(
        reasons.OUT_OF_RANGE, f"timestamp {_shown(own_ms)} {problem}, {allowed}{_unit_hint(own_ms, now_ms)}"
    )


def _shown(number: float) -> str:
    return str(number) if abs(number) < 2**64 else f"{float(number)}"


def _unit_hint(own: float, now_ms: int) -> str:
    """Return in which unit a timestamp would be one of this century, empty if in none."""
    for unit, per_ms in _UNITS:
        if MIN_TIMESTAMP_MS * per_ms <= own <= (now_ms + DAY_MS) * per_ms:
            return f"; it looks like {unit}: {rfc_3339(int(own / per_ms))}"
    return ""


def with_exact_integers(event: Event) -> Event:
    """Return the event with all digits of integers beyond 64 bits.

    ``Event.fields`` has them as floats, as rules see them: looking for them would cost every event.
    """
    if not exact_json.may_have_long_integers(event.value):
        return event
    return msgspec.structs.replace(event, _fields=_completed(exact_json.loads(event.value)))


def _decoded(value: bytes) -> Any:
    """Decode JSON; integers beyond 64 bits become floats.

    Raises:
        RejectedError: it is not JSON.
    """
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        pass  # or an integer that is no float either
    try:
        return exact_json.loads(value)
    except orjson.JSONDecodeError as error:
        detail = "begins with a byte order mark, allowed is none" if value.startswith(BOM_UTF8) else str(error)
        raise RejectedError(reasons.NOT_JSON, detail) from None


def is_too_deep(value: bytes, document: Any) -> bool:
    """Whether a JSON document has more than ``MAX_DEPTH`` levels; ``value`` is what it was decoded from."""
    return _may_be_deep(value) and nested_deeper(document, MAX_DEPTH)


def _may_be_deep(value: bytes) -> bool:
    # Counting brackets is cheap: a value with fewer brackets than allowed levels cannot be too deep.
    return value.count(b"{") + value.count(b"[") > MAX_DEPTH


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


def _completed(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with defaults filled in, also for null, and with a whole number as ``timestamp``."""
    if _is_complete(fields):
        return fields
    for name in REQUIRED:
        if name not in fields:
            raise RejectedError(reasons.MISSING_FIELD, f"{name} is missing")
    complete = DEFAULTS | fields
    for name, allowed in _TYPES.items():
        value = complete[name]
        # type() instead of isinstance(): True is an int in Python but not a number in JSON.
        kind = type(value)
        if kind in allowed:
            continue
        if value is None and name in DEFAULTS:
            complete[name] = DEFAULTS[name]
        elif name == "timestamp" and kind is float and value.is_integer():
            complete[name] = int(value)  # also of a timestamp beyond 64 bits, to tell how it is out of range
        elif kind is not exact_json.LongInteger or int not in allowed:
            names = " or ".join(kind.__name__ for kind in allowed)
            raise RejectedError(reasons.WRONG_TYPE, f"{name} is a {kind.__name__}, allowed is {names}")
    return complete
