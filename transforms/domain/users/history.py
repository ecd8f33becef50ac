"""A user's last events (docs/spec/architecture.md, "Per-User State Structure").

Rows are kept as text (``row_text.py``): 100 rows take a few kilobytes, decoded only when a rule reads them.
Rows are sorted by timestamp, then by arrival, newest last.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from transforms.domain.base import exact_json
from transforms.domain.users import row_text
from transforms.domain.users.row_text import encode_api_rows, encode_row, encode_rows


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One past event in compact form.

    Attributes:
        extra: the fields that ``--history_fields`` names.
        from_api: whether the row comes from the user API and the event was not read from Kafka yet.
        is_page: whether the event came through Kafka and is a page of a visit.
    """

    timestamp_ms: int
    event_id: str
    event_name: str
    extra: dict[str, Any] | None = None
    from_api: bool = False
    is_page: bool = False

    def public(self) -> dict[str, Any]:
        """Return the row as rules and actions see it (docs/spec/event-dispatch.md, "Enriched Event Structure")."""
        shown = {"event_id": self.event_id, "event_name": self.event_name, "timestamp": self.timestamp_ms}
        return shown if self.extra is None else shown | self.extra


Packed = tuple[int, int, bytes]  # count, newest_ms, rows: a history in the journal


class SortedRows(NamedTuple):
    """Rows as a history stores them, oldest first: made where the user API's answer is read, not in a shard's step.

    Attributes:
        packed: the rows, sorted; each event once.
        marks: a hash of each event id, only of use in this process.
    """

    packed: Packed
    marks: bytes

    def has(self, event_id: str) -> bool:
        """Whether the rows may have an event: False is certain."""
        return _event_hash(event_id) in self.marks

    def rows(self) -> list[Row]:
        """Decode and return the rows."""
        return _rows_of(self.packed[2])


_time_of = attrgetter("timestamp_ms")
_old_rows_decoder = msgspec.msgpack.Decoder(list[Row], ext_hook=exact_json.of_msgpack)
# Old rows are dropped 28 at a time, because dropping re-encodes; readers only see the last `limit` rows.
_SLACK: Final = 28
_HASH_BYTES: Final = 4


def sort_rows(rows: Iterable[Row]) -> SortedRows:
    """Sort rows by time as ``History.merge`` does; of rows of the same event the last one counts."""
    merged = sorted({row.event_id: row for row in rows}.values(), key=_time_of)
    newest_ms = merged[-1].timestamp_ms if merged else 0
    return SortedRows((len(merged), newest_ms, encode_rows(merged)), _event_hashes([row.event_id for row in merged]))


def sort_api_rows(event_ids: list[str], names: list[str], times_ms: list[int]) -> SortedRows:
    """Sort rows of the user API without further fields, given by column. Most APIs give them in order."""
    if times_ms != sorted(times_ms) or len(set(event_ids)) < len(event_ids):
        columns = zip(times_ms, event_ids, names, strict=True)
        return sort_rows([Row(at_ms, event_id, name, from_api=True) for at_ms, event_id, name in columns])
    newest_ms = times_ms[-1] if times_ms else 0
    rows = encode_api_rows(event_ids, names, times_ms)
    return SortedRows((len(event_ids), newest_ms, rows), _event_hashes(event_ids))


NO_ROWS: Final = SortedRows((0, 0, b""), b"")


class History:
    """At most ``limit`` rows, stored one after the other as text."""

    __slots__ = ("_count", "_hashes", "_newest_ms", "_text", "limit")

    def __init__(self, limit: int, text: bytes = b"", count: int = 0, newest_ms: int = 0) -> None:
        self.limit = limit
        self._text = bytearray(text)
        self._count = count
        self._newest_ms = newest_ms
        # A hash of each event id, to find out cheaply that an event is new. Built on first use, because it is not part
        # of the stored state and users of a restored shard may never send an event again.
        self._hashes: bytearray | None = None

    def __len__(self) -> int:
        return min(self._count, self.limit)

    @property
    def nbytes(self) -> int:
        """Size of the encoded rows in bytes."""
        return len(self._text)

    def rows(self) -> list[Row]:
        """Decode and return the rows, oldest first."""
        return _rows_of(self._visible())

    def columns(self) -> tuple[list[int], list[str], list[str], list[dict[str, Any]] | None]:
        """Return timestamps, event ids, event names and further fields (None: no row has any), oldest row first."""
        arrays = row_text.arrays_of(self._visible())
        extras = [array[4] if len(array) > 4 else {} for array in arrays]
        return (
            [array[3] for array in arrays],
            [array[1] for array in arrays],
            [array[2] for array in arrays],
            extras if any(extras) else None,
        )

    def public_json(self) -> bytes:
        """Return the rows as actions show them, a JSON array, without decoding them."""
        shown = row_text.public_json(self._visible())
        return exact_json.dumps([row.public() for row in self.rows()]) if shown is None else shown

    def find(self, event_id: str) -> Row | None:
        """Return the row of an event, None if there is none."""
        if self._hashes is None:
            self._hashes = bytearray(_event_hashes([array[1] for array in row_text.arrays_of(self._text)]))
        if _event_hash(event_id) not in self._hashes:
            return None
        row = row_text.find_row(self._visible(), event_id)
        return None if row is None else _rows_of(row)[0]

    def keep_marks(self, marks: bytes) -> None:
        """Take the hashes of exactly these rows, so that they need not be built."""
        self._hashes = bytearray(marks)

    def oldest_ms(self) -> int | None:
        """Return the timestamp of the oldest row, None without rows."""
        return row_text.times_of(self._visible())[0] if self._count else None

    def newest_ms(self) -> int | None:
        """Return the timestamp of the newest row, None without rows."""
        return row_text.times_of(self._visible())[-1] if self._count else None

    def add(self, row: Row) -> int:
        """Insert a row by its timestamp, after rows of the same timestamp; drop the oldest row over the limit.

        Returns:
            How much larger ``nbytes`` is, which is less than 0 when rows were dropped.
        """
        before = len(self._text)
        if row.timestamp_ms >= self._newest_ms:
            self._text += encode_row(row)
            self._newest_ms = row.timestamp_ms
            if self._hashes is not None:
                self._hashes += _event_hash(row.event_id)
        else:
            position = bisect_right(row_text.times_of(self._text), row.timestamp_ms)
            offset = row_text.offset_of_row(self._text, position)
            self._text[offset:offset] = encode_row(row)
            if self._hashes is not None:
                self._hashes[position * _HASH_BYTES : position * _HASH_BYTES] = _event_hash(row.event_id)
        self._count += 1
        if self._count > self.limit + _SLACK:
            self._trim()
        return len(self._text) - before

    def merge(self, rows: Iterable[Row]) -> None:
        """Insert those rows whose event id is not in the history; ties come before the existing rows."""
        known = self.rows()
        ids = {row.event_id for row in known}
        fresh = {row.event_id: row for row in rows if row.event_id not in ids}
        if fresh:
            merged = sorted([*fresh.values(), *known], key=_time_of)
            self._replace([encode_row(row) for row in merged[-self.limit :]])

    def drop(self, event_id: str) -> None:
        """Remove the row of an event."""
        mark = row_text.id_mark(event_id)
        self._replace([row for row in row_text.split_rows(self._visible()) if not row.startswith(mark, 1)])

    def cut(self, max_bytes: int) -> int:
        """Drop the oldest rows until at most ``max_bytes`` are held; return the number of dropped rows."""
        if len(self._text) <= max_bytes:
            return 0
        rows = row_text.split_rows(self._visible())
        # Drop 10 % more than necessary, so that the next event does not cut again.
        nbytes, first = sum(map(len, rows)), 0
        while first < len(rows) and nbytes > max_bytes * 0.9:
            nbytes -= len(rows[first])
            first += 1
        self._replace(rows[first:])
        return first

    def pack(self) -> Packed:
        """Return the form that the journal stores and ``unpack`` reads."""
        if self._count > self.limit:
            self._trim()
        return self._count, self._newest_ms, bytes(self._text)

    @classmethod
    def unpack(cls, limit: int, packed: Packed) -> History:
        """Restore a packed history; ``limit`` may differ from the limit it was packed with."""
        count, newest_ms, rows = packed
        if rows[:1] > row_text.LAST_START:
            # An earlier release stored the rows as MessagePack, where each begins with the head of an array.
            rows = encode_rows(_old_rows_decoder.decode(b"\xdd" + count.to_bytes(4, "big") + rows))
        return cls(limit, rows, count, newest_ms)

    def _visible(self) -> bytes | bytearray:
        """The text of the last ``limit`` rows."""
        if self._count <= self.limit:
            return self._text
        return self._text[row_text.offset_of_row(self._text, self._count - self.limit) :]

    def _trim(self) -> None:
        """Drop the rows over the limit."""
        if self._hashes is not None:
            del self._hashes[: (self._count - self.limit) * _HASH_BYTES]
        self._text = bytearray(self._visible())
        self._count = self.limit

    def _replace(self, rows: Sequence[bytes]) -> None:
        self._text = bytearray(b"".join(rows))
        self._count = len(rows)
        self._newest_ms = row_text.times_of(rows[-1])[0] if rows else 0
        self._hashes = None


def _rows_of(text: bytes | bytearray) -> list[Row]:
    return [
        Row(time, event_id, event_name, further[0] if further else None, origin > 1, origin % 2 == 1)
        for origin, event_id, event_name, time, *further in row_text.arrays_of(text)
    ]


def _event_hashes(event_ids: Collection[str]) -> bytes:
    """``_event_hash`` of each, at a tenth of the cost."""
    hashes = struct.pack(f"<{len(event_ids)}q", *map(hash, event_ids))
    return memoryview(hashes).cast("I")[::2].tobytes()


def _event_hash(event_id: str) -> bytes:
    return (hash(event_id) & 0xFFFFFFFF).to_bytes(_HASH_BYTES, "little")
