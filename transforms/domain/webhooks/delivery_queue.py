"""Webhooks that a user has yet to be sent, in order for each destination (docs/delivery.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

MAX_QUEUED: Final = 100
MAX_QUEUE_BYTES: Final = 1_000_000
MAX_BODY_BYTES: Final = 256 * 1024

_OVERHEAD_BYTES: Final = 300
_ITEM_BYTES: Final = 400


class Delivery(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A webhook that has not ended. Times in ms; ``due_ms`` is when it may be tried (again).

    ``failures`` are tries that failed, ``attempts`` the requests in them, ``first_ms`` is when the first was, 0 if
    none. ``status`` and ``said`` are what the last one came to.
    """

    action_id: str
    destination: str
    rule: str
    version: int
    action: str
    event_id: str
    body: bytes
    decided_ms: int
    due_ms: int
    failures: int = 0
    attempts: int = 0
    first_ms: int = 0
    status: int | None = None
    said: str = ""

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return _ITEM_BYTES + len(self.body) + len(self.said)


DELIVERED: Final = "delivered"
RETRY: Final = "retry"  # failed for now
REFUSED: Final = "refused"  # it will not help to repeat it
GONE: Final = "gone"  # the receiver wants no more of them
DELAYED: Final = "delayed"  # not tried: over its rate, or its breaker is open


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What a try came to: ``ended`` is one of this module's. ``attempts`` are the requests that were made in it.

    ``after_s`` is what the receiver, or the pool, asked to wait for. ``chance`` is 0 to 1, for the jitter of the pause.
    """

    user_id: str
    action_id: str
    ended: str
    attempts: int = 1
    status: int | None = None
    said: str = ""
    after_s: float | None = None
    latency_ms: int = 0
    chance: float = 0.5


class PackedDeliveryQueue(msgspec.Struct, array_like=True):
    """A user's in the journal. Fields are only ever added at the end, with a default."""

    user_id: str
    waiting: list[Delivery]


class DeliveryQueue:
    """What waits for one user, by destination, the oldest first. Only ``ShardState.apply`` changes it."""

    __slots__ = ("nbytes", "queues")

    def __init__(self) -> None:
        self.queues: dict[str, list[Delivery]] = {}
        self.nbytes = _OVERHEAD_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self.queues

    def __iter__(self) -> Iterator[Delivery]:
        for queue in self.queues.values():
            yield from queue

    def heads(self) -> list[Delivery]:
        """Those that are next, one a destination."""
        return [queue[0] for queue in self.queues.values()]

    def find(self, action_id: str) -> Delivery | None:
        """The one of an action, if it waits."""
        return next((one for one in self if one.action_id == action_id), None)

    def is_full(self, destination: str, nbytes: int) -> bool:
        """Whether one more of this size would be too much for its queue."""
        queue = self.queues.get(destination, [])
        return len(queue) >= MAX_QUEUED or sum(one.nbytes for one in queue) + nbytes > MAX_QUEUE_BYTES

    def add(self, delivery: Delivery) -> None:
        """At the end of its queue; nothing if it is in there."""
        if self.find(delivery.action_id) is None:
            self.queues.setdefault(delivery.destination, []).append(delivery)
            self.nbytes += delivery.nbytes

    def replace(self, delivery: Delivery) -> None:
        """The same delivery after a try, in its place; nothing if it waits no more."""
        queue = self.queues.get(delivery.destination, [])
        for place, one in enumerate(queue):
            if one.action_id == delivery.action_id:
                self.nbytes += delivery.nbytes - one.nbytes
                queue[place] = delivery

    def remove(self, action_id: str) -> None:
        """It has ended; nothing if it did before."""
        delivery = self.find(action_id)
        if delivery is None:
            return
        queue = self.queues[delivery.destination]
        queue.remove(delivery)
        self.nbytes -= delivery.nbytes
        if not queue:
            del self.queues[delivery.destination]

    def pack(self, user_id: str) -> PackedDeliveryQueue:
        """For the journal."""
        return PackedDeliveryQueue(user_id, list(self))

    @classmethod
    def unpack(cls, packed: PackedDeliveryQueue) -> DeliveryQueue:
        """As it was packed."""
        deliveries = cls()
        for one in packed.waiting:
            deliveries.add(one)
        return deliveries

    def public(self) -> list[dict[str, Any]]:
        """As an inspection shows them: without bodies."""
        return [
            {
                "action_id": one.action_id,
                "destination": one.destination,
                "rule": one.rule,
                "event_id": one.event_id,
                "due": one.due_ms,
                "attempts": one.attempts,
                "last": one.said,
            }
            for one in self
        ]


EMPTY_QUEUE: Final = DeliveryQueue()  # of users without; never changed


def switch_record(destination: str, enabled: bool) -> bytes:
    """The control record that enables or disables a destination."""
    return orjson.dumps({"destination": destination, "enabled": enabled})


def is_switch(document: Any) -> bool:
    """Whether a control record's JSON is one of ``switch_record``."""
    return (
        isinstance(document, dict)
        and document.keys() == {"destination", "enabled"}
        and isinstance(document["destination"], str)
        and isinstance(document["enabled"], bool)
    )
