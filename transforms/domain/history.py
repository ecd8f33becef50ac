"""A user's last events, kept encoded: 100 rows cost a few kilobytes, are decoded only when a rule or action asks.

A row is ``(timestamp_ms, event_id, event_name, extra)``; rows are ordered by timestamp, ties by arrival, newest last.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

Row = tuple[int, str, str, dict[str, Any] | None]

_rows_decoder = msgspec.msgpack.Decoder(list[Row])
_encoder = msgspec.msgpack.Encoder()
# Rows are dropped in lots, so that a full history is not re-encoded for every event; readers see the last `limit` only.
_SLACK = 28


class History:
    """At most ``limit`` rows as one run of MessagePack bytes."""

    __slots__ = ("_count", "_newest_ms", "_packed", "limit")

    def __init__(self, limit: int, packed: bytes = b"", count: int = 0, newest_ms: int = 0) -> None:
        self.limit = limit
        self._packed = bytearray(packed)
        self._count = count
        self._newest_ms = newest_ms

    def __len__(self) -> int:
        return min(self._count, self.limit)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return len(self._packed)

    def rows(self) -> list[Row]:
        """The rows, oldest first."""
        return self._decode()[-self.limit :]

    def contains(self, event_id: str) -> bool:
        """Whether an event of this id is among the rows."""
        # A substring search costs a microsecond and almost always says no; only a hit pays for decoding.
        return event_id.encode() in self._packed and any(row[1] == event_id for row in self.rows())

    def add(self, row: Row) -> None:
        """Insert a row by its timestamp, after those of the same timestamp; the oldest goes when there are too many."""
        if row[0] >= self._newest_ms:
            self._packed += _encoder.encode(row)
            self._newest_ms = row[0]
            self._count += 1
            if self._count > self.limit + _SLACK:
                self._replace(self.rows())
            return
        rows = self.rows()
        position = next((i for i in range(len(rows), 0, -1) if rows[i - 1][0] <= row[0]), 0)
        rows.insert(position, row)
        self._replace(rows[-self.limit :])

    def merge(self, rows: Iterable[Row]) -> None:
        """Add rows that are not here yet, by event id."""
        known = self.rows()
        ids = {row[1] for row in known}
        fresh = {row[1]: row for row in rows if row[1] not in ids}
        if fresh:
            merged = sorted([*fresh.values(), *known], key=lambda row: row[0])
            self._replace(merged[-self.limit :])

    def pack(self) -> tuple[int, int, bytes]:
        """``(count, newest_ms, bytes)`` for a snapshot, the form that ``unpack`` reads."""
        if self._count > self.limit:
            self._replace(self.rows())
        return self._count, self._newest_ms, bytes(self._packed)

    @classmethod
    def unpack(cls, limit: int, packed: tuple[int, int, bytes]) -> History:
        """A history as it was packed, under a limit that may have changed since."""
        count, newest_ms, rows = packed
        return cls(limit, rows, count, newest_ms)

    def _decode(self) -> list[Row]:
        return _rows_decoder.decode(b"\xdd" + self._count.to_bytes(4, "big") + self._packed)

    def _replace(self, rows: list[Row]) -> None:
        self._packed = bytearray(b"".join(map(_encoder.encode, rows)))
        self._count = len(rows)
        self._newest_ms = rows[-1][0] if rows else 0


def public_rows(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows as actions show them (spec: "Enriched Event Structure")."""
    return [{"event_id": row[1], "event_name": row[2], "timestamp": row[0], **(row[3] or {})} for row in rows]
