"""What a worker remembers of an open shard beside its state. None of it is stored: a restore starts anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from transforms.domain.shard.folded_journal import FoldedJournal
from transforms.runtime.outbox import Outbox


@dataclass(slots=True)
class ShardMemory:
    """Fetches in flight, deliveries in flight, what the timers are set to, what the gauges show; times in ms.

    Attributes:
        fetch_started_ms: by user, since when the user API is being asked.
        outbox: whose webhooks are due or in flight; created when it is first needed.
        idle_due_ms: what the idle timer is set to; likewise ``pending_due_ms`` and ``stream_due_ms``.
        number: the shard's number, once a batch has shown it.
        published_size: the sizes that the gauges show.
        published_ms: when they were last set.
        has_unpublished_size: whether the sizes have changed since.
        empty_fetch_polls: how many polls in a row brought no user API answer.
        empty_delivery_polls: how many polls in a row brought no delivery result.
    """

    fetch_started_ms: dict[str, int] = field(default_factory=dict)
    outbox: Outbox | None = None
    idle_due_ms: int | None = None
    pending_due_ms: int | None = None
    stream_due_ms: int | None = None
    number: int | None = None
    published_size: tuple[int, ...] = ()
    published_ms: int = 0
    has_unpublished_size: bool = False
    empty_fetch_polls: int = 0
    empty_delivery_polls: int = 0


_memories: Final[WeakKeyDictionary[FoldedJournal, ShardMemory]] = WeakKeyDictionary()


def memory_of(folded: FoldedJournal) -> ShardMemory:
    """The memory that goes with a folded journal: the worker loses both together."""
    memory = _memories.get(folded)
    if memory is None:
        memory = _memories[folded] = ShardMemory()
    return memory
