"""Rows of a history as stored text: JSON values between control characters, which JSON text never contains.

    start, event id, ID_END, event name, NAME_END, timestamp [, EXTRA, object of further fields]

So a few replacements make the JSON array of an action's body from it; nothing is decoded. A row takes 65 bytes, in
MessagePack 61, as an object of that array 105.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from transforms.domain.base import exact_json

if TYPE_CHECKING:
    from transforms.domain.users.history import Row

# The start of a row says where it is from: 1, and 1 more for a page, 2 more for a row of the user API.
_STARTS: Final = (b"\x01", b"\x02", b"\x03", b"\x04")
LAST_START: Final = _STARTS[-1]
_ID_END: Final = b"\x05"
_NAME_END: Final = b"\x06"
_EXTRA: Final = b"\x07"
_UNUSUAL_EXTRA: Final = b"\x08"  # an empty object, or one with a field that every row has
_BETWEEN: Final = bytes.maketrans(b"\x05\x06\x07\x08", b",,,,")
_START: Final = re.compile(rb"[\x01-\x04]")
_BEFORE_START: Final = re.compile(rb"(?=[\x01-\x04])")
_TIME: Final = re.compile(rb"\x06(-?[0-9]+)")
_OWN_FIELDS: Final = frozenset({"event_id", "event_name", "timestamp"})

_json = msgspec.json.Encoder().encode  # of texts and integers: what orjson writes, in less time


def encode_row(row: Row) -> bytes:
    """Encode one row."""
    text = b"%b%b\x05%b\x06%d" % (
        _STARTS[row.is_page + 2 * row.from_api],
        _json(row.event_id),
        _json(row.event_name),
        row.timestamp_ms,
    )
    extra = row.extra
    if extra is None:
        return text
    is_usual = extra and _OWN_FIELDS.isdisjoint(extra)
    return text + (_EXTRA if is_usual else _UNUSUAL_EXTRA) + exact_json.dumps(extra)


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Encode rows one after the other."""
    return b"".join(map(encode_row, rows))


def encode_api_rows(event_ids: Sequence[str], names: Sequence[str], times_ms: Sequence[int]) -> bytes:
    """Encode rows of the user API without further fields, given by column, which costs less."""
    if not event_ids:
        return b""
    between = {name: b'"\x05%b\x06' % _json(name) for name in set(names)}
    parts = [b'\x03"'] * (4 * len(event_ids))
    # Within a JSON text a quote follows a backslash, so that this only separates texts.
    parts[1::4] = _json(event_ids)[2:-2].split(b'","')
    parts[2::4] = [between[name] for name in names]
    parts[3::4] = _json(times_ms)[1:-1].split(b",")
    return b"".join(parts)


def id_mark(event_id: str) -> bytes:
    """What follows the start of this event's row, and of no other's."""
    return _json(event_id) + _ID_END


def find_row(text: bytes | bytearray, event_id: str) -> bytes | None:
    """Return the first row of an event, None if there is none."""
    mark = id_mark(event_id)
    at = text.find(mark)
    while at >= 0:
        if text[at - 1 : at] in _STARTS:  # else the mark is the end of a longer id
            next_row = _START.search(text, at)
            return bytes(text[at - 1 : next_row.start() if next_row else len(text)])
        at = text.find(mark, at + 1)
    return None


def split_rows(text: bytes | bytearray) -> list[bytes]:
    """Return each row of a text by itself."""
    return _BEFORE_START.split(bytes(text))[1:]


def offset_of_row(text: bytes | bytearray, number: int) -> int:
    """Return where the row of a number begins, counted from 0; after the last row the end of the text."""
    if not number:
        return 0
    # Each row has one end of a name, which costs less to find than its start.
    at = -1
    for _ in range(number):
        at = text.find(_NAME_END, at + 1)
        if at < 0:
            return len(text)
    start = _START.search(text, at)
    return start.start() if start else len(text)


def times_of(text: bytes | bytearray) -> list[int]:
    """Return the timestamp of each row."""
    return list(map(int, _TIME.findall(text)))


def arrays_of(text: bytes | bytearray) -> list[list[Any]]:
    """Decode rows: origin (0 to 3, as ``_STARTS``), event id, name, timestamp, the further fields if there are any."""
    if not text:
        return []
    loads = exact_json.loads if _EXTRA in text or _UNUSUAL_EXTRA in text else orjson.loads
    arrays = bytes(text.translate(_BETWEEN))
    for origin, start in enumerate(_STARTS):
        arrays = arrays.replace(start, b"],[%d," % origin)
    decoded: list[list[Any]] = loads(b"[%b]]" % arrays[2:])
    return decoded


def public_json(text: bytes | bytearray) -> bytes | None:
    """Return the JSON array of rows as actions show them, byte for byte what orjson makes of ``Row.public``.

    None if a row has further fields that take the place of its own.
    """
    if _UNUSUAL_EXTRA in text:
        return None
    if not text:
        return b"[]"
    text = bytes(text)
    if _EXTRA in text:
        for start in _STARTS:
            text = text.replace(b"}" + start, start)
        text = text.removesuffix(b"}").replace(_EXTRA + b"{", b",")
    for start in _STARTS:
        text = text.replace(start, b'},{"event_id":')
    text = text.replace(_ID_END, b',"event_name":').replace(_NAME_END, b',"timestamp":')
    return b"[%b}]" % text[2:]
