"""What a worker remembers of an open shard beside its state. None of it is stored: a restore starts anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from transforms.adapters.ledger.delivery_ledger import ShardLedger
from transforms.runtime.outbox import Outbox


@dataclass(slots=True)
class ShardMemory:
    """Fetches and deliveries in flight, what the timers are set to, what the gauges show; times in ms.

    Attributes:
        outbox: webhooks that are due or in flight.
        fetch_started_ms: the users with a fetch in flight, and when it started.
        fetches_checked_ms: when the shard last looked for fetches that are missing; 0: it looks at once.
        idle_due_ms: what the idle timer is set to; likewise ``pending_due_ms`` and ``stream_due_ms``.
        number: the shard's number, once a batch has shown it.
        published_sizes: the sizes that the gauges show.
        published_ms: when they were last set.
        has_unpublished_size: whether the sizes may have changed since.
        empty_fetch_polls: how many polls in a row brought no user API answer.
        empty_delivery_polls: how many polls in a row brought no delivery result.
        ledger: the shard's part of the ledger of deliveries, once it is needed.
    """

    outbox: Outbox
    fetch_started_ms: dict[str, int] = field(default_factory=dict)
    fetches_checked_ms: int = 0
    idle_due_ms: int | None = None
    pending_due_ms: int | None = None
    stream_due_ms: int | None = None
    number: int | None = None
    published_sizes: tuple[int, ...] = ()
    published_ms: int = 0
    has_unpublished_size: bool = False
    empty_fetch_polls: int = 0
    empty_delivery_polls: int = 0
    ledger: ShardLedger | None = None
