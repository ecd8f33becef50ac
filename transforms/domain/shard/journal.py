"""The journal of a user shard: what its steps decided, entry after entry; folding it gives the view.

It lies in two Beam bags, which can be appended to, read and cleared as a whole, and nothing else. Entries go to one
bag until they outweigh what they amount to. Then the other bag takes over: it gets all further entries and, a few users
with each of them, the state of everybody (``MOVED`` facts). When all are there, the first bag is cleared. So no step
writes more than its own entry and one chunk, however large the shard.

Each bag starts with a head that has a generation; the higher one is written to. On Flink elements are encoded when
the bundle commits, not when they are added, so they carry frozen bytes from the moment they are made.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
import zstandard

from transforms.domain.events.record import Record
from transforms.domain.rules.state import HeldAction, OpenSequence, PackedRuleState
from transforms.domain.shard.shard_state import (
    BEGUN,
    HELD,
    LOADED,
    MOVED,
    OBSERVED,
    PARKED,
    QUEUED,
    RESCHEDULED,
    UPDATED,
    Fact,
    PackedParked,
    ShardState,
)
from transforms.domain.users.history import Row
from transforms.domain.users.user import PackedUser
from transforms.domain.users.visit import Visit
from transforms.domain.webhooks.delivery_queue import Delivery, PackedDeliveryQueue

DEFAULT_COMPACT_BYTES: Final = 256 * 1024

_COMPRESS_FROM: Final = 256
# Of users moved with one step: large enough to compress well, small enough to take a millisecond or two.
_CHUNK_BYTES: Final = 256 * 1024
# The journal may be so many times as large as what it amounts to, drawn anew for each shard and rewrite: the shards of
# a worker fill evenly and would otherwise all be rewritten in the same seconds.
_GARBAGE: Final = (1.15, 1.35)

_Number = tuple[bytes, bytes]  # kind and version of an element
_SNAPSHOT_HEAD: Final = (b"H", b"\x01")
_HEAD: Final = (b"H", b"\x02")
_ENTRY: Final = (b"E", b"\x01")


class JournalHead:
    """A bag's first element. ``folded`` is what is known without reading the rest; it is never stored.

    Journals of version 1 have one bag, whose head holds a snapshot.
    """

    __slots__ = ("folded", "generation", "snapshot", "stored_bytes")

    def __init__(self, generation: int, snapshot: bytes = b"") -> None:
        self.generation = generation
        self.snapshot = snapshot
        self.folded: FoldedJournal | None = None
        self.stored_bytes = 0  # of this bag's entries that are still held

    def cache_weight_of_bag(self) -> int:
        """Bytes of memory that the state cache should count for the whole bag."""
        return self.stored_bytes + (self.folded.state.nbytes if self.folded is not None else 0)


class JournalEntry:
    """What one step decided: ``stored`` are an entry's frozen bytes, ``packed_bytes`` their size uncompressed.

    ``is_written`` is set when the runner has taken the bytes.
    """

    __slots__ = ("is_written", "packed_bytes", "stored")

    def __init__(self, stored: bytes, packed_bytes: int) -> None:
        self.stored: bytes | None = stored
        self.packed_bytes = packed_bytes
        self.is_written = False


JournalElement = JournalHead | JournalEntry


class _Entry(msgspec.Struct, array_like=True):
    now_ms: int
    facts: list[list[Any]]


class _Compression(threading.local):
    """zstd contexts cost more to make than to use, and are one thread's."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(level=1).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_entry_decoder = msgspec.msgpack.Decoder(_Entry)
_zstd = _Compression()


def make_entry(now_ms: int, facts: Sequence[Fact]) -> JournalEntry:
    """An entry of facts decided at ``now_ms``."""
    packed = msgspec.msgpack.encode((now_ms, facts))
    return JournalEntry(_store(_ENTRY, packed), len(packed))


def encode_element(element: JournalElement) -> bytes:
    """An element as it is stored: kind, codec version, whether compressed, body."""
    if isinstance(element, JournalHead):
        return _store(_HEAD, msgspec.msgpack.encode([element.generation]))
    if element.stored is None:
        raise ValueError("journal entry written twice: its bytes were let go after the first time")
    return element.stored


def decode_element(stored: bytes) -> JournalElement:
    """Read an element.

    Raises:
        ValueError: it was written by a release newer than this one.
    """
    number = (stored[:1], stored[1:2])
    if number == _ENTRY:
        entry = JournalEntry(stored, _packed_bytes(stored))
        entry.is_written = True
        return entry
    if number == _HEAD:
        return JournalHead(msgspec.msgpack.decode(_body(stored))[0])
    if number == _SNAPSHOT_HEAD:
        return JournalHead(0, _body(stored))
    raise ValueError(
        f"journal element {number[0]!r} of version {number[1]!r}: this worker reads H of 1 and 2, E of 1; "
        "the state is of a newer release"
    )


def _store(number: _Number, body: bytes) -> bytes:
    kind, version = number
    if len(body) < _COMPRESS_FROM:
        return kind + version + b"\x00" + body
    return kind + version + b"\x01" + _zstd.compress(body)


def _body(stored: bytes) -> bytes:
    return _zstd.decompress(stored[3:]) if stored[2:3] == b"\x01" else stored[3:]


def _packed_bytes(stored: bytes) -> int:
    return zstandard.frame_content_size(stored[3:21]) if stored[2:3] == b"\x01" else len(stored) - 3


def _some_garbage() -> float:
    return random.uniform(*_GARBAGE)  # noqa: S311 - to spread work, not to keep a secret


@dataclass(slots=True)
class FoldedJournal:
    """A journal that has been read: the state it amounts to, and how much of it is folded. Nothing here is stored.

    Attributes:
        state: the shard's state.
        counts: for each bag the number of elements that are folded.
        log_bytes: for each bag the bytes of these elements, uncompressed.
        freed: the number of elements of the older bag, from its start, that hold no bytes any more.
        garbage: how many times its size the journal may take before it is rewritten.
        moving: while the journal is rewritten, the users that have yet to be moved, the next one last.
        memory: what the worker keeps beside the state and loses with it; the journal does not look into it.
    """

    state: ShardState
    counts: list[int] = field(default_factory=lambda: [0, 0])
    log_bytes: list[int] = field(default_factory=lambda: [0, 0])
    freed: int = 1
    garbage: float = field(default_factory=_some_garbage)
    moving: list[str] | None = None
    memory: Any = None


class Bag(Protocol):
    """What is used of a Beam ``BagState``."""

    def read(self) -> Iterable[Any]:
        """All elements, in the order they were added."""

    def add(self, value: Any) -> None:
        """Append an element."""

    def clear(self) -> None:
        """Remove all elements."""


class Journal:
    """The two bags of a shard, opened: ``folded`` is up to date.

    ``refolded`` says how many elements that took, ``compactions`` how often the journal has been rewritten since,
    ``used`` whether there was anything stored, or has been since.

    Raises:
        ValueError: what is stored is no journal, or of a newer release.
    """

    def __init__(self, bags: Sequence[Bag], history_size: int, compact_bytes: int = DEFAULT_COMPACT_BYTES) -> None:
        self._bags = bags
        self._compact_bytes = compact_bytes
        self.refolded = self.compactions = 0
        read = [bag.read() for bag in bags]
        # On our workers a read is the cached list itself; copying it element by element is felt in large shards.
        self._cells = [cell if type(cell) is list else list(cell) for cell in read]
        heads = [(index, _head(cell)) for index, cell in enumerate(self._cells) if cell]
        # By bag, the older one first, the one that is written to last.
        self._heads = dict(sorted(heads, key=lambda item: item[1].generation))
        self.used = bool(heads)
        known = self._carrier.folded if self._heads else None
        # A view that does not match its bags is left over from a bundle that failed.
        if known is not None and known.counts == [len(cell) for cell in self._cells]:
            self.folded = known
        else:
            self.folded = self._fold(history_size)
        self._let_go()

    # Reading

    def _fold(self, history_size: int) -> FoldedJournal:
        if not self._heads:
            return FoldedJournal(ShardState(history_size))
        snapshot = self._carrier.snapshot
        folded = FoldedJournal(ShardState.of_snapshot(snapshot, history_size))
        self.refolded = 1 if snapshot else 0
        moved: set[str] = set()
        for index, head in self._heads.items():
            moved.clear()
            head.folded, head.stored_bytes = None, 0
            for entry in self._cells[index][1:]:
                if entry.stored is None:
                    raise ValueError("journal entry cannot be read a second time: the job has to be restored")
                moved.update(_replay(folded.state, entry.stored))
                folded.log_bytes[index] += entry.packed_bytes
                head.stored_bytes += len(entry.stored)
                self.refolded += 1
            folded.counts[index] = len(self._cells[index])
        if len(self._heads) > 1:
            folded.moving = [user_id for user_id in _everybody(folded.state) if user_id not in moved]
        self._carrier.folded = folded
        return folded

    def _let_go(self) -> None:
        """Free the bytes of entries that are folded and written; if their bag is ever read anew, so is the view."""
        if not self._heads:
            return
        carrier, cell, folded = self._carrier, self._cells[self._older], self.folded
        while folded.freed < len(cell) and cell[folded.freed].is_written:
            entry = cell[folded.freed]
            carrier.stored_bytes -= len(entry.stored)
            entry.stored = None
            folded.freed += 1

    # Writing

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While the view is changed it belongs to nobody: if that fails half-way, whoever opens next folds anew."""
        if self._heads:
            self._carrier.folded = None
        yield
        if self._heads:
            self._carrier.folded = self.folded

    def append(self, now_ms: int, facts: Sequence[Fact]) -> None:
        """Write what a step decided, facts that are in the view already; rewrites a part of the journal when due."""
        if not self._heads:
            self._begin(0, 1)
        self._add(make_entry(now_ms, facts))
        if self.folded.moving is None:
            if sum(self.folded.log_bytes) <= max(
                self._compact_bytes, self.folded.garbage * self.folded.state.packed_bytes
            ):
                return
            self._begin(1 - self._newer, self._heads[self._newer].generation + 1)
            self._begin_moving(now_ms)
        self._move(now_ms)

    def rewrite(self, now_ms: int) -> None:
        """Write the view anew at once: nothing of what was removed from it is in the bags any more."""
        generation = self._heads[self._newer].generation if self._heads else 0
        self.clear()
        if self.folded.state.is_empty:
            return
        self._begin(0, generation + 1)
        self._begin_moving(now_ms)
        while self.folded.moving is not None:
            self._move(now_ms)

    def clear(self) -> None:
        """Leave nothing behind."""
        for index in tuple(self._heads):
            self._drop(index)

    def _begin(self, index: int, generation: int) -> None:
        self.used = True
        head = self._heads[index] = JournalHead(generation)
        self._bags[index].add(head)
        self.folded.counts[index] = 1

    def _drop(self, index: int) -> None:
        self._bags[index].clear()
        del self._heads[index]
        self.folded.counts[index] = self.folded.log_bytes[index] = 0
        self.folded.freed = 1

    def _add(self, entry: JournalEntry) -> None:
        index = self._newer
        self._bags[index].add(entry)
        self._heads[index].stored_bytes += len(entry.stored or b"")
        self.folded.counts[index] += 1
        self.folded.log_bytes[index] += entry.packed_bytes

    def _begin_moving(self, now_ms: int) -> None:
        self.folded.moving = _everybody(self.folded.state)
        facts = self.folded.state.packed_of_shard()
        if facts:
            self._add(make_entry(now_ms, facts))

    def _move(self, now_ms: int) -> None:
        """Write one chunk of those who have yet to be moved; after the last one the older bag is not needed."""
        moving = self.folded.moving or []
        facts = self.folded.state.packed(_popping(moving), _CHUNK_BYTES)
        if facts:
            self._add(make_entry(now_ms, facts))
        if not moving:
            self.folded.moving, self.folded.garbage = None, _some_garbage()
            self.compactions += 1
            if len(self._heads) > 1:
                self._drop(self._older)

    @property
    def _older(self) -> int:
        return next(iter(self._heads))

    @property
    def _newer(self) -> int:
        return next(reversed(self._heads))

    @property
    def _carrier(self) -> JournalHead:
        return self._heads[self._older]


def _head(cell: Sequence[Any]) -> JournalHead:
    if not isinstance(cell[0], JournalHead):
        raise ValueError("journal does not start with a head: its first element is lost")
    return cell[0]


def _everybody(view: ShardState) -> list[str]:
    """Users, and those of whom there is only something else, longest idle last."""
    others = {**view.parked, **view.rule_states, **view.deliveries}
    return [*(user_id for user_id in others if user_id not in view.users), *reversed(view.users)]


def _popping(user_ids: list[str]) -> Iterator[str]:
    while user_ids:
        yield user_ids.pop()


def _replay(view: ShardState, stored: bytes) -> list[str]:
    """Apply an entry; the users that were moved by it."""
    entry = _entry_decoder.decode(_body(stored))
    moved = []
    for plain in entry.facts:
        fact = _typed(plain)
        view.apply(entry.now_ms, fact)
        if fact[0] == MOVED:
            moved.append(next(one.user_id for one in fact[1:] if one is not None))
    return moved


def _typed(fact: list[Any]) -> Fact:
    """A fact with the structs that MessagePack stored as plain arrays."""
    kind = fact[0]
    if kind == OBSERVED:
        fact[2] = Row(*fact[2])
        fact[3] = _visit(fact[3])
    elif kind in (LOADED, UPDATED):
        fact[4] = _visit(fact[4])
        fact[5] = [Row(*row) for row in fact[5]]
    elif kind == PARKED:
        fact[4] = Record(*fact[4])
    elif kind == MOVED:
        fact[1] = msgspec.convert(fact[1], PackedUser | None)
        fact[2] = msgspec.convert(fact[2], PackedParked | None)
        if len(fact) > 3:  # before rules had state, two were all
            fact[3] = msgspec.convert(fact[3], PackedRuleState | None)
        if len(fact) > 4:
            fact[4] = msgspec.convert(fact[4], PackedDeliveryQueue | None)
    elif kind == BEGUN:
        fact[2] = OpenSequence(*fact[2])
    elif kind == HELD:
        fact[2] = HeldAction(*fact[2])
    elif kind in (QUEUED, RESCHEDULED):
        fact[2] = Delivery(*fact[2])
    return tuple(fact)


def _visit(plain: list[Any] | None) -> Visit | None:
    return None if plain is None else Visit(*plain)
