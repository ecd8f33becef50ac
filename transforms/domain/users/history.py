"""A user's last events (docs/spec/architecture.md, "Per-User State Structure").

Rows are kept encoded: 100 rows take a few kilobytes, and they are decoded only when a rule or an action reads them.
Rows are sorted by timestamp, then by arrival, newest last.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec

from transforms.domain.base import exact_json


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
    """Rows as a history stores them, made where the user API's answer is read and not in the step of a shard.

    Attributes:
        packed: the rows, sorted; each event once.
        marks: a hash of each event id, only of use in this process.
    """

    packed: Packed
    marks: bytes

    def has(self, event_id: str) -> bool:
        """Whether the rows may have an event: False is certain."""
        return _event_hash(event_id) in self.marks


_time_of = attrgetter("timestamp_ms")
_rows_decoder = msgspec.msgpack.Decoder(list[Row], ext_hook=exact_json.of_msgpack)
_encoded_rows_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_encoder = msgspec.msgpack.Encoder(enc_hook=exact_json.to_msgpack)
# Old rows are dropped 28 at a time, because dropping re-encodes; readers only see the last `limit` rows.
_SLACK: Final = 28
_HASH_BYTES: Final = 4


def sort_rows(rows: Iterable[Row]) -> SortedRows:
    """Sort rows by time as ``History.merge`` does."""
    merged = sorted({row.event_id: row for row in rows}.values(), key=_time_of)
    newest_ms = merged[-1].timestamp_ms if merged else 0
    return SortedRows((len(merged), newest_ms, _encoded(merged)), _event_hashes([row.event_id for row in merged]))


class History:
    """At most ``limit`` rows, stored as concatenated MessagePack."""

    __slots__ = ("_count", "_hashes", "_newest_ms", "_packed", "limit")

    def __init__(self, limit: int, packed: bytes = b"", count: int = 0, newest_ms: int = 0) -> None:
        self.limit = limit
        self._packed = bytearray(packed)
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
        return len(self._packed)

    def rows(self) -> list[Row]:
        """Decode and return the rows, oldest first."""
        return self._decode()[-self.limit :]

    def find(self, event_id: str) -> Row | None:
        """Return the row of an event, None if there is none."""
        if self._hashes is None:
            self._hashes = bytearray(_event_hashes([row.event_id for row in self._decode()]))
        if _event_hash(event_id) not in self._hashes:
            return None
        return next((row for row in self.rows() if row.event_id == event_id), None)

    def keep_marks(self, marks: bytes) -> None:
        """Take the hashes of exactly these rows, so that they need not be built."""
        self._hashes = bytearray(marks)

    def oldest_ms(self) -> int | None:
        """Return the timestamp of the oldest row, None without rows."""
        return self.rows()[0].timestamp_ms if self._count else None

    def add(self, row: Row) -> None:
        """Insert a row by its timestamp, after rows of the same timestamp; drop the oldest row over the limit."""
        if row.timestamp_ms >= self._newest_ms:
            self._packed += _encoder.encode(row)
            self._newest_ms = row.timestamp_ms
            self._count += 1
            if self._hashes is not None:
                self._hashes += _event_hash(row.event_id)
            if self._count > self.limit + _SLACK:
                self._trim()
            return
        rows = self.rows()
        position = next((i for i in range(len(rows), 0, -1) if rows[i - 1].timestamp_ms <= row.timestamp_ms), 0)
        rows.insert(position, row)
        self._replace(rows[-self.limit :])

    def merge(self, rows: Iterable[Row]) -> None:
        """Insert those rows whose event id is not in the history; ties come before the existing rows."""
        known = self.rows()
        ids = {row.event_id for row in known}
        fresh = {row.event_id: row for row in rows if row.event_id not in ids}
        if fresh:
            merged = sorted([*fresh.values(), *known], key=_time_of)
            self._replace(merged[-self.limit :])

    def drop(self, event_id: str) -> None:
        """Remove the row of an event."""
        self._replace([row for row in self.rows() if row.event_id != event_id])

    def cut(self, max_bytes: int) -> int:
        """Drop the oldest rows until at most ``max_bytes`` are held; return the number of dropped rows."""
        if len(self._packed) <= max_bytes:
            return 0
        rows = self.rows()
        sizes = [len(_encoder.encode(row)) for row in rows]
        # Drop 10 % more than necessary, so that the next event does not cut again.
        nbytes, first = sum(sizes), 0
        while first < len(rows) and nbytes > max_bytes * 0.9:
            nbytes -= sizes[first]
            first += 1
        self._replace(rows[first:])
        return first

    def pack(self) -> Packed:
        """Return the form that the journal stores and ``unpack`` reads."""
        if self._count > self.limit:
            self._trim()
        return self._count, self._newest_ms, bytes(self._packed)

    @classmethod
    def unpack(cls, limit: int, packed: Packed) -> History:
        """Restore a packed history; ``limit`` may differ from the limit it was packed with."""
        count, newest_ms, rows = packed
        return cls(limit, rows, count, newest_ms)

    def _decode(self) -> list[Row]:
        return _rows_decoder.decode(self._as_array())

    def _as_array(self) -> bytes:
        return b"\xdd" + self._count.to_bytes(4, "big") + self._packed

    def _trim(self) -> None:
        """Drop the rows over the limit without decoding the others."""
        dropped = self._count - self.limit
        self._packed = bytearray(b"".join(_encoded_rows_decoder.decode(self._as_array())[dropped:]))
        self._count = self.limit
        if self._hashes is not None:
            del self._hashes[: dropped * _HASH_BYTES]

    def _replace(self, rows: Collection[Row]) -> None:
        self._packed = bytearray(_encoded(rows))
        self._count = len(rows)
        self._newest_ms = max((row.timestamp_ms for row in rows), default=0)
        self._hashes = None


def _encoded(rows: Collection[Row]) -> bytes:
    """The rows one after the other: an array without its head."""
    head_bytes = 1 if len(rows) < 16 else 3 if len(rows) < 65_536 else 5
    return _encoder.encode(rows)[head_bytes:]


def _event_hashes(event_ids: Collection[str]) -> bytes:
    """``_event_hash`` of each, at a tenth of the cost."""
    hashes = struct.pack(f"<{len(event_ids)}q", *map(hash, event_ids))
    return memoryview(hashes).cast("I")[::2].tobytes()


def _event_hash(event_id: str) -> bytes:
    return (hash(event_id) & 0xFFFFFFFF).to_bytes(_HASH_BYTES, "little")
