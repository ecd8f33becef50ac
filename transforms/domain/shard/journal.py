"""The journal of a user shard: the facts of its steps, entry after entry. Folding it gives the shard's state.

The journal lies in two Beam bags. A bag can be appended to, read and cleared as a whole, and nothing else. Entries go
to one bag until they outweigh the state. Then the other bag takes over: it gets all further entries and, with each of
them, the state of a few users (``UserMoved``). When it has all users, the first bag is cleared. So no step writes more
than its own entry and one chunk, however large the shard is.

Each bag starts with a head that has a generation. The bag with the higher generation is written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from transforms.domain.shard.facts import Fact, UserMoved
from transforms.domain.shard.journal_elements import FoldedJournal, JournalEntry, JournalHead, make_entry
from transforms.domain.shard.shard_state import ShardState

DEFAULT_COMPACT_BYTES: Final = 256 * 1024

# Of the users that are moved with one step: large enough to compress well, small enough to take a millisecond or two.
_CHUNK_BYTES: Final = 256 * 1024


class CachedBag(Protocol):
    """A Beam ``BagState`` behind the SDK harness's state cache, and what the journal relies on there.

    1. *Same objects.* While the runner's cache token is valid, ``read`` returns the same element objects in the order
       in which they were added, whichever DoFn instance asks. So a head can carry the folded journal. If the bag was
       evicted, or the token is new, ``read`` returns new objects, and the journal is folded again.
    2. *The cached list itself.* On our workers ``read`` returns the list that the cache holds, at no cost however long
       the bag is. The journal never changes it.
    3. *Encoded once, at commit.* An element is encoded when the bundle that added it commits, not by ``add``. So an
       entry holds frozen bytes from the moment it is made, and its coder sets ``is_written`` when the runner has them.
    4. *A failed bundle's elements are not read.* The folded journal counts them, so that the next open sees that it is
       left over and folds again. If bytes that this needs were freed, opening fails until the job has been restored.

    ``tests/transforms/test_journal_bags.py`` holds Beam to the first three.
    """

    def read(self) -> Iterable[Any]:
        """All elements, in the order they were added."""

    def add(self, value: Any) -> None:
        """Append an element."""

    def clear(self) -> None:
        """Remove all elements."""


class Journal:
    """The two bags of a shard, opened.

    Attributes:
        folded: the journal, folded up to its last element.
        refolded: the number of elements that had to be read for it.
        compactions: how often the journal has been rewritten since it was opened.
        used: whether anything is stored, or was since the journal was opened.

    Raises:
        ValueError: the bags hold no journal, or that of a newer release.
    """

    def __init__(
        self, bags: Sequence[CachedBag], history_size: int, compact_bytes: int = DEFAULT_COMPACT_BYTES
    ) -> None:
        self._bags = bags
        self._compact_bytes = compact_bytes
        self.refolded = self.compactions = 0
        read = [bag.read() for bag in bags]
        # Copying the cached list, element by element, costs measurable time in large shards.
        self._cells: list[list[Any]] = [cell if type(cell) is list else list(cell) for cell in read]
        heads = [(index, _head(cell)) for index, cell in enumerate(self._cells) if cell]
        # By bag, the older one first, the one that is written to last.
        self._heads = dict(sorted(heads, key=lambda item: item[1].generation))
        self.used = bool(heads)
        folded = self._carrier.folded if self._heads else None
        # A folded journal that does not match its bags is left over from a bundle that failed.
        if folded is not None and folded.counts == [len(cell) for cell in self._cells]:
            self.folded = folded
        else:
            self.folded = self._fold(history_size)
        self._free_written_entries()

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
                moved.update(_replay(folded.state, entry))
                folded.log_bytes[index] += entry.packed_bytes
                head.stored_bytes += len(entry.stored)
                self.refolded += 1
            folded.counts[index] = len(self._cells[index])
        if len(self._heads) > 1:
            folded.moving = [user_id for user_id in _all_user_ids(folded.state) if user_id not in moved]
        self._carrier.folded = folded
        return folded

    def _free_written_entries(self) -> None:
        """Free the bytes of entries that are folded and written; new objects come with new bytes."""
        if not self._heads:
            return
        carrier, folded = self._carrier, self.folded
        for entry in self._cells[self._older][folded.freed :]:
            if not entry.is_written:
                break
            carrier.stored_bytes -= len(entry.stored)
            entry.stored = None
            folded.freed += 1

    # Writing

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the folded journal back while the state changes: if a change fails, the next open folds again."""
        if self._heads:
            self._carrier.folded = None
        yield
        if self._heads:
            self._carrier.folded = self.folded

    def append(self, now_ms: int, facts: Sequence[Fact]) -> None:
        """Write the facts of a step, which the state has already; when due, rewrite a part of the journal, too."""
        if not self._heads:
            self._begin(0, 1)
        self._add(make_entry(now_ms, facts))
        if self.folded.moving is None:
            if sum(self.folded.log_bytes) <= max(
                self._compact_bytes, self.folded.garbage_limit * self.folded.state.packed_bytes
            ):
                return
            self._begin(1 - self._newer, self._heads[self._newer].generation + 1)
            self._begin_moving(now_ms)
        self._move(now_ms)

    def rewrite(self, now_ms: int) -> None:
        """Write the whole state again at once: the bags keep nothing of what was removed from it."""
        generation = self._heads[self._newer].generation if self._heads else 0
        self.clear()
        if self.folded.state.is_empty:
            return
        self._begin(0, generation + 1)
        self._begin_moving(now_ms)
        while self.folded.moving is not None:
            self._move(now_ms)

    def clear(self) -> None:
        """Remove everything that is stored."""
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
        self.folded.moving = _all_user_ids(self.folded.state)
        facts = self.folded.state.shard_facts()
        if facts:
            self._add(make_entry(now_ms, facts))

    def _move(self, now_ms: int) -> None:
        """Write one chunk of the users that have yet to be moved; after the last one, clear the older bag."""
        moving = self.folded.moving or []
        facts = self.folded.state.moves(_popping(moving), _CHUNK_BYTES)
        if facts:
            self._add(make_entry(now_ms, facts))
        if not moving:
            self.folded.end_moving()
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


def _all_user_ids(state: ShardState) -> list[str]:
    """The ids of all users of whom anything is kept, the longest idle last."""
    others = {**state.parked, **state.rule_states, **state.deliveries}
    return [*(user_id for user_id in others if user_id not in state.users), *reversed(state.users)]


def _popping(user_ids: list[str]) -> Iterator[str]:
    while user_ids:
        yield user_ids.pop()


def _replay(state: ShardState, entry: JournalEntry) -> list[str]:
    """Apply an entry; returns the ids of the users that it moved."""
    batch = entry.read_facts()
    moved = []
    for fact in batch.facts:
        state.apply(batch.now_ms, fact)
        if isinstance(fact, UserMoved):
            moved.append(fact.user_id)
    return moved
