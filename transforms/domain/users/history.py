"""A user's last events, kept encoded: 100 rows cost a few kilobytes, are decoded only when a rule or action asks.

Rows are ordered by timestamp, ties by arrival, newest last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One event in compact form; ``extra`` holds the fields that ``history_fields`` names.

    ``from_api`` says that only the user API has told of it, not the stream.
    """

    timestamp_ms: int
    event_id: str
    event_name: str
    extra: dict[str, Any] | None = None
    from_api: bool = False

    def public(self) -> dict[str, Any]:
        """The row as actions show it (spec: "Enriched Event Structure")."""
        shown = {"event_id": self.event_id, "event_name": self.event_name, "timestamp": self.timestamp_ms}
        return shown if self.extra is None else shown | self.extra


Packed = tuple[int, int, bytes]  # count, newest_ms, rows: a history in a snapshot

_rows_decoder = msgspec.msgpack.Decoder(list[Row])
_encoded_rows_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_encoder = msgspec.msgpack.Encoder()
# Rows are dropped in lots, so that a full history is not re-encoded for every event; readers see the last `limit` only.
_SLACK: Final = 28
_MARK_BYTES: Final = 4


class History:
    """At most ``limit`` rows as one run of MessagePack bytes."""

    __slots__ = ("_count", "_marks", "_newest_ms", "_packed", "limit")

    def __init__(self, limit: int, packed: bytes = b"", count: int = 0, newest_ms: int = 0) -> None:
        self.limit = limit
        self._packed = bytearray(packed)
        self._count = count
        self._newest_ms = newest_ms
        # Four bytes a row, by which nearly every event is known to be none of them. Made when asked for: no part of the
        # state, and the users of a restored shard may never come again.
        self._marks: bytearray | None = None

    def __len__(self) -> int:
        return min(self._count, self.limit)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return len(self._packed)

    def rows(self) -> list[Row]:
        """The rows, oldest first."""
        return self._decode()[-self.limit :]

    def find(self, event_id: str) -> Row | None:
        """The row of an event."""
        if self._marks is None:
            self._marks = bytearray(b"".join([_mark(row.event_id) for row in self._decode()]))
        if _mark(event_id) not in self._marks:
            return None
        return next((row for row in self.rows() if row.event_id == event_id), None)

    def oldest_ms(self) -> int | None:
        """The timestamp of the oldest row; None without rows."""
        return self.rows()[0].timestamp_ms if self._count else None

    def add(self, row: Row) -> None:
        """Insert a row by its timestamp, after those of the same timestamp; the oldest goes when there are too many."""
        if row.timestamp_ms >= self._newest_ms:
            self._packed += _encoder.encode(row)
            self._newest_ms = row.timestamp_ms
            self._count += 1
            if self._marks is not None:
                self._marks += _mark(row.event_id)
            if self._count > self.limit + _SLACK:
                self._trim()
            return
        rows = self.rows()
        position = next((i for i in range(len(rows), 0, -1) if rows[i - 1].timestamp_ms <= row.timestamp_ms), 0)
        rows.insert(position, row)
        self._replace(rows[-self.limit :])

    def merge(self, rows: Iterable[Row]) -> None:
        """Add rows that are not here yet, by event id."""
        known = self.rows()
        ids = {row.event_id for row in known}
        fresh = {row.event_id: row for row in rows if row.event_id not in ids}
        if fresh:
            merged = sorted([*fresh.values(), *known], key=lambda row: row.timestamp_ms)
            self._replace(merged[-self.limit :])

    def drop(self, event_id: str) -> None:
        """Take out the row of an event."""
        self._replace([row for row in self.rows() if row.event_id != event_id])

    def cut(self, max_bytes: int) -> int:
        """Drop the oldest rows until no more than ``max_bytes`` are held; how many went."""
        if len(self._packed) <= max_bytes:
            return 0
        rows = self.rows()
        sizes = [len(_encoder.encode(row)) for row in rows]
        # More than need be, so that the next event does not cut again.
        held, first = sum(sizes), 0
        while first < len(rows) and held > max_bytes * 0.9:
            held -= sizes[first]
            first += 1
        self._replace(rows[first:])
        return first

    def pack(self) -> Packed:
        """For a snapshot, the form that ``unpack`` reads."""
        if self._count > self.limit:
            self._trim()
        return self._count, self._newest_ms, bytes(self._packed)

    @classmethod
    def unpack(cls, limit: int, packed: Packed) -> History:
        """A history as it was packed, under a limit that may have changed since."""
        count, newest_ms, rows = packed
        return cls(limit, rows, count, newest_ms)

    def _decode(self) -> list[Row]:
        return _rows_decoder.decode(self._as_array())

    def _as_array(self) -> bytes:
        return b"\xdd" + self._count.to_bytes(4, "big") + self._packed

    def _trim(self) -> None:
        """Drop the rows that readers do not see any more; the others need no decoding for it."""
        dropped = self._count - self.limit
        self._packed = bytearray(b"".join(_encoded_rows_decoder.decode(self._as_array())[dropped:]))
        self._count = self.limit
        if self._marks is not None:
            del self._marks[: dropped * _MARK_BYTES]

    def _replace(self, rows: Collection[Row]) -> None:
        self._packed = bytearray(b"".join(map(_encoder.encode, rows)))
        self._count = len(rows)
        self._newest_ms = max((row.timestamp_ms for row in rows), default=0)
        self._marks = None


def _mark(event_id: str) -> bytes:
    return (hash(event_id) & 0xFFFFFFFF).to_bytes(_MARK_BYTES, "little")
