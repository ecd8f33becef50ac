"""The journal of a user shard: a snapshot first, then one entry per step; folding it gives the view.

Elements live in a Beam bag. On Flink they are encoded when the bundle commits, not when they are added, so a head
carries the bytes of its snapshot from the moment it is made; the folded view beside them is never encoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import zstandard

from transforms.domain.batches import Record
from transforms.domain.users import Visit
from transforms.domain.view import LOADED, OBSERVED, PARKED, Fact, View

_HEAD: Final = b"H"
_ENTRY: Final = b"E"
_VERSION: Final = b"\x01"
_COMPRESS_FROM: Final = 256
DEFAULT_COMPACT_BYTES: Final = 256 * 1024


class JournalHead:
    """The journal's first element: a snapshot's frozen bytes and, while the object lives, the view folded so far.

    ``folded`` counts the journal's elements that the view contains, this one included. ``idle_due_ms`` and
    ``pending_due_ms`` remember what the timers are set to, ``fruitless_polls`` how often the latter fired for nothing.
    None of these is stored.
    """

    __slots__ = ("folded", "fruitless_polls", "idle_due_ms", "journal_bytes", "pending_due_ms", "snapshot", "view")

    def __init__(self, snapshot: bytes, view: View | None = None) -> None:
        self.snapshot = snapshot
        self.view = view
        self.folded = 1
        self.journal_bytes = 0
        self.idle_due_ms: int | None = None
        self.pending_due_ms: int | None = None
        self.fruitless_polls = 0

    def is_current(self, elements: int) -> bool:
        """Whether the view can be used for a journal of so many elements, or has to be folded anew.

        A view that holds more than the journal is left over from a bundle that failed.
        """
        return self.view is not None and self.folded <= elements

    def cache_weight_of_bag(self) -> int:
        """Bytes of memory that the state cache should count for the whole journal."""
        # Every entry is held twice, as bytes by the cache and as facts in the view; the snapshot once.
        return len(self.snapshot) + 2 * self.journal_bytes + (self.view.nbytes if self.view is not None else 0)


class JournalEntry:
    """What one step decided, as bytes."""

    __slots__ = ("packed",)

    def __init__(self, packed: bytes) -> None:
        self.packed = packed


JournalElement = JournalHead | JournalEntry


class _Entry(msgspec.Struct, array_like=True):
    now_ms: int
    facts: list[list[Any]]


_entry_decoder = msgspec.msgpack.Decoder(_Entry)


def pack_entry(now_ms: int, facts: Sequence[Fact]) -> bytes:
    """An entry's bytes."""
    return msgspec.msgpack.encode((now_ms, facts))


def encode_element(element: JournalElement) -> bytes:
    """An element as it is stored: kind, codec version, whether compressed, body."""
    kind, body = (_HEAD, element.snapshot) if isinstance(element, JournalHead) else (_ENTRY, element.packed)
    if len(body) < _COMPRESS_FROM:
        return kind + _VERSION + b"\x00" + body
    return kind + _VERSION + b"\x01" + zstandard.compress(body, 1)


def decode_element(stored: bytes) -> JournalElement:
    """Read an element.

    Raises:
        ValueError: it was written by a release newer than this one.
    """
    kind, version, compressed, body = stored[:1], stored[1:2], stored[2:3], stored[3:]
    if version != _VERSION or kind not in (_HEAD, _ENTRY):
        raise ValueError(
            f"journal element {kind!r} of version {version!r}: this worker reads {_HEAD!r}, {_ENTRY!r} of 1"
        )
    if compressed == b"\x01":
        body = zstandard.decompress(body)
    return JournalHead(body) if kind == _HEAD else JournalEntry(body)


def fold(elements: Sequence[JournalElement], history_size: int) -> tuple[JournalHead, View, int]:
    """The head, its view brought up to date, and how many elements had to be folded for it."""
    head = elements[0]
    if not isinstance(head, JournalHead):
        raise ValueError("journal does not start with a snapshot: its first element is lost")
    refolded = 0
    if head.view is None or not head.is_current(len(elements)):
        head.view = View.restore(head.snapshot, history_size)
        head.folded, head.journal_bytes = 1, 0
        # What a failed bundle set, no timer knows.
        head.idle_due_ms = head.pending_due_ms = None
        refolded += 1 if head.snapshot else 0
    for element in elements[head.folded :]:
        if not isinstance(element, JournalEntry):
            raise ValueError("journal holds a second snapshot: it was compacted twice at once")
        _replay(head.view, element)
        head.journal_bytes += len(element.packed)
        refolded += 1
    head.folded = len(elements)
    return head, head.view, refolded


def _replay(view: View, element: JournalEntry) -> None:
    entry = _entry_decoder.decode(element.packed)
    for fact in entry.facts:
        view.apply(entry.now_ms, _typed(fact))


def _typed(fact: list[Any]) -> Fact:
    """A fact with the structs that MessagePack stored as plain arrays."""
    kind = fact[0]
    if kind == OBSERVED and fact[3] is not None:
        fact[3] = Visit(*fact[3])
    elif kind == LOADED and fact[4] is not None:
        fact[4] = Visit(*fact[4])
    elif kind == PARKED:
        fact[4] = Record(*fact[4])
    return tuple(fact)


def should_compact(head: JournalHead, key: bytes, compact_bytes: int) -> bool:
    """Whether the entries outgrew the snapshot; shards differ, so that they do not all compact in the same second."""
    jitter = 1 + (zlib.crc32(key) % 64) / 128
    return head.journal_bytes > max(compact_bytes, len(head.snapshot)) * jitter
