"""The elements of a journal's bags, and how they are stored: kind, codec version, whether compressed, body.

The first element of a bag also carries the journal, folded, while the worker has it in memory.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import zstandard

from transforms.domain.base import exact_json
from transforms.domain.shard.facts import Fact, FactBatch, decode_facts
from transforms.domain.shard.shard_state import ShardState

_COMPRESS_FROM: Final = 256

_Number = tuple[bytes, bytes]  # kind and version of an element
_SNAPSHOT_HEAD: Final = (b"H", b"\x01")
_HEAD: Final = (b"H", b"\x02")
_OLD_ENTRY: Final = (b"E", b"\x01")  # histories in it are MessagePack, which History.unpack still reads
_ENTRY: Final = (b"E", b"\x02")

# A zstd context costs more to create than to use, and only one thread may use it at a time. A thread takes one from the
# list and puts it back. Both are atomic in Python, so the list needs no lock.
_compressors: list[zstandard.ZstdCompressor] = []
_decompressors: list[zstandard.ZstdDecompressor] = []


# Bounds of ``garbage_limit``. It is drawn for each shard and rewrite: the shards of a worker fill evenly and would
# otherwise all be rewritten in the same seconds.
GARBAGE_LIMITS: Final = (1.15, 1.35)


def _draw_garbage_limit() -> float:
    return random.uniform(*GARBAGE_LIMITS)  # noqa: S311 - to spread work, not to keep a secret


@dataclass(slots=True, eq=False)
class FoldedJournal:
    """The state that a journal amounts to, and how much of the journal is folded into it. Nothing here is stored.

    Attributes:
        state: the shard's state.
        counts: for each bag the number of elements that are folded.
        log_bytes: for each bag the bytes of these elements, uncompressed.
        freed: the number of elements of the older bag, from its start, that hold no bytes any more.
        garbage_limit: how many times the size of its state the journal may take before it is rewritten.
        moving: while the journal is rewritten, the users that have yet to be moved, the next one last.
        memory: what the worker remembers of the shard and loses together with the state; the journal never reads it.
    """

    state: ShardState
    counts: list[int] = field(default_factory=lambda: [0, 0])
    log_bytes: list[int] = field(default_factory=lambda: [0, 0])
    freed: int = 1
    garbage_limit: float = field(default_factory=_draw_garbage_limit)
    moving: list[str] | None = None
    memory: Any = None

    def end_moving(self) -> None:
        """All users are moved; the next rewrite begins at another limit."""
        self.moving, self.garbage_limit = None, _draw_garbage_limit()


class JournalHead:
    """A bag's first element.

    Attributes:
        generation: the bag with the higher one is written to.
        snapshot: the state that a journal of version 1 starts with; empty in all others.
        folded: the journal, folded, so that the elements need not be read again; never stored.
        stored_bytes: bytes of this bag's entries that are still in memory.
    """

    __slots__ = ("folded", "generation", "snapshot", "stored_bytes")

    def __init__(self, generation: int, snapshot: bytes = b"") -> None:
        self.generation = generation
        self.snapshot = snapshot
        self.folded: FoldedJournal | None = None
        self.stored_bytes = 0

    def cache_weight_of_bag(self) -> int:
        """Bytes of memory that the state cache should count for the whole bag."""
        return self.stored_bytes + (self.folded.state.nbytes if self.folded is not None else 0)


class JournalEntry:
    """The facts of one step, or of a part of a rewrite.

    Attributes:
        stored: the bytes as they are stored, frozen when the entry is made; None once they were freed.
        packed_bytes: the size of the facts, uncompressed.
        is_written: whether the runner has taken the bytes.
    """

    __slots__ = ("is_written", "packed_bytes", "stored")

    def __init__(self, stored: bytes, packed_bytes: int) -> None:
        self.stored: bytes | None = stored
        self.packed_bytes = packed_bytes
        self.is_written = False

    def read_facts(self) -> FactBatch:
        """Decode the facts.

        Raises:
            ValueError: the bytes were freed, or a fact is of a newer release.
        """
        if self.stored is None:
            raise ValueError("journal entry cannot be read a second time: the job has to be restored")
        return decode_facts(_body(self.stored))


JournalElement = JournalHead | JournalEntry


def make_entry(now_ms: int, facts: Sequence[Fact]) -> JournalEntry:
    """An entry of facts that were decided at ``now_ms``."""
    packed = msgspec.msgpack.encode((now_ms, facts), enc_hook=exact_json.to_msgpack)
    return JournalEntry(_store(_ENTRY, packed), len(packed))


def encode_element(element: JournalElement) -> bytes:
    """The bytes of an element as they are stored.

    Raises:
        ValueError: the entry's bytes were freed.
    """
    if isinstance(element, JournalHead):
        return _store(_HEAD, msgspec.msgpack.encode([element.generation]))
    if element.stored is None:
        raise ValueError("journal entry written twice: its bytes were freed after the first time")
    return element.stored


def decode_element(stored: bytes) -> JournalElement:
    """Read an element.

    Raises:
        ValueError: it was written by a release newer than this one.
    """
    number = (stored[:1], stored[1:2])
    if number in (_ENTRY, _OLD_ENTRY):
        entry = JournalEntry(stored, _packed_bytes(stored))
        entry.is_written = True
        return entry
    if number == _HEAD:
        return JournalHead(msgspec.msgpack.decode(_body(stored))[0])
    if number == _SNAPSHOT_HEAD:
        return JournalHead(0, _body(stored))
    raise ValueError(
        f"journal element {number[0]!r} of version {number[1]!r}: this worker reads H and E of 1 and 2; "
        "the state is of a newer release"
    )


def _store(number: _Number, body: bytes) -> bytes:
    kind, version = number
    if len(body) < _COMPRESS_FROM:
        return kind + version + b"\x00" + body
    try:
        compressor = _compressors.pop()
    except IndexError:
        compressor = zstandard.ZstdCompressor(level=1)
    compressed = compressor.compress(body)
    _compressors.append(compressor)
    return kind + version + b"\x01" + compressed


def _body(stored: bytes) -> bytes:
    if stored[2:3] != b"\x01":
        return stored[3:]
    try:
        decompressor = _decompressors.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor()
    body = decompressor.decompress(stored[3:])
    _decompressors.append(decompressor)
    return body


def _packed_bytes(stored: bytes) -> int:
    return zstandard.frame_content_size(stored[3:21]) if stored[2:3] == b"\x01" else len(stored) - 3
