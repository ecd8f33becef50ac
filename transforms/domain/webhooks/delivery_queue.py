"""Webhooks of one user that have not ended, first in first out for each destination (docs/delivery.md)."""

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
    """A webhook that has not ended; times in ms.

    Attributes:
        decided_ms: when the rule fired.
        due_ms: when the next attempt may start.
        failures: deliveries that failed; ``attempts`` are the requests that they made.
        first_ms: when the first delivery failed; 0 if none has.
        status: HTTP status of the last attempt.
        message: the last error, with the beginning of the receiver's answer.
        expires_ms: when it is not sent any more; 0: never.
        group: the rule's group when it was decided.
        redrive: which control record sent it again; empty if the rule's firing did.
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
    message: str = ""
    expires_ms: int = 0
    group: str = ""
    redrive: str = ""

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return _ITEM_BYTES + len(self.body) + len(self.message)

    def is_over(self, now_ms: int) -> bool:
        """Whether it has expired."""
        return 0 < self.expires_ms <= now_ms


DELIVERED: Final = "delivered"
RETRY: Final = "retry"  # failed; another attempt may succeed
REFUSED: Final = "refused"  # failed; another attempt would fail, too
GONE: Final = "gone"  # the receiver answered 410: it wants no more webhooks
DELAYED: Final = "delayed"  # no attempt was made: the destination is over its rate, or its circuit breaker is open


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """How one delivery by the sender ended.

    Attributes:
        outcome: one of this module's constants.
        attempts: the requests that the sender made.
        message: the error, with the beginning of the receiver's answer.
        retry_after_s: the pause that the receiver or the sender asks for.
        latency_ms: duration of the last request.
        chance: 0 to 1, for the jitter of the pause before the next attempt.
        is_found: whether the ledger says so, and there was no call.
    """

    user_id: str
    action_id: str
    outcome: str
    attempts: int = 1
    status: int | None = None
    message: str = ""
    retry_after_s: float | None = None
    latency_ms: int = 0
    chance: float = 0.5
    is_found: bool = False


class PackedDeliveryQueue(msgspec.Struct, array_like=True):
    """A user's delivery queue in the journal. Fields are only ever added at the end, with a default."""

    user_id: str
    waiting: list[Delivery]


class DeliveryQueue:
    """Deliveries of one user by destination, the oldest first. Only ``ShardState.apply`` changes it."""

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
        """The next delivery to each destination."""
        return [queue[0] for queue in self.queues.values()]

    def find(self, action_id: str) -> Delivery | None:
        """The delivery of an action; None: it has ended, or never was."""
        return next((delivery for delivery in self if delivery.action_id == action_id), None)

    def expiry_due_ms(self) -> int | None:
        """When the first delivery expires."""
        return min((delivery.expires_ms for delivery in self if delivery.expires_ms), default=None)

    def is_full(self, destination: str, nbytes: int) -> bool:
        """Whether the queue of a destination has no room for another delivery of ``nbytes``."""
        queue = self.queues.get(destination, [])
        return len(queue) >= MAX_QUEUED or sum(queued.nbytes for queued in queue) + nbytes > MAX_QUEUE_BYTES

    def add(self, delivery: Delivery) -> None:
        """Append a delivery to the queue of its destination, unless it is there."""
        if self.find(delivery.action_id) is None:
            self.queues.setdefault(delivery.destination, []).append(delivery)
            self.nbytes += delivery.nbytes

    def replace(self, delivery: Delivery) -> None:
        """Replace a delivery in its place, if it is there."""
        queue = self.queues.get(delivery.destination, [])
        for place, queued in enumerate(queue):
            if queued.action_id == delivery.action_id:
                self.nbytes += delivery.nbytes - queued.nbytes
                queue[place] = delivery

    def remove(self, action_id: str) -> None:
        """Remove the delivery of an action, if it is there."""
        delivery = self.find(action_id)
        if delivery is None:
            return
        queue = self.queues[delivery.destination]
        queue.remove(delivery)
        self.nbytes -= delivery.nbytes
        if not queue:
            del self.queues[delivery.destination]

    def pack(self, user_id: str) -> PackedDeliveryQueue:
        """A copy for the journal."""
        return PackedDeliveryQueue(user_id, list(self))

    @classmethod
    def unpack(cls, packed: PackedDeliveryQueue) -> DeliveryQueue:
        """The queue that was packed."""
        queue = cls()
        for delivery in packed.waiting:
            queue.add(delivery)
        return queue

    def public(self) -> list[dict[str, Any]]:
        """The ``deliveries`` of an inspection, without bodies; times in ms."""
        return [
            {
                "action_id": delivery.action_id,
                "destination": delivery.destination,
                "rule": delivery.rule,
                "event_id": delivery.event_id,
                "due": delivery.due_ms,
                "attempts": delivery.attempts,
                "last": delivery.message,
            }
            for delivery in self
        ]


EMPTY_QUEUE: Final = DeliveryQueue()  # for users without deliveries; never changed


def switch_record(destination: str, enabled: bool) -> bytes:
    """The control record that enables or disables a destination."""
    return orjson.dumps({"destination": destination, "enabled": enabled})


def is_switch(document: Any) -> bool:
    """Whether the JSON value of a control record has the form that ``switch_record`` makes."""
    return (
        isinstance(document, dict)
        and document.keys() == {"destination", "enabled"}
        and isinstance(document["destination"], str)
        and isinstance(document["enabled"], bool)
    )
