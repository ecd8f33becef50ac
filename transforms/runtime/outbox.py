"""What a worker knows of a shard's webhooks and does not store: whose turn it is, and what is under way."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Final

from transforms.domain.base.due_index import DueIndex
from transforms.domain.webhooks.delivery_queue import (
    DELAYED,
    DELIVERED,
    EMPTY_QUEUE,
    GONE,
    REFUSED,
    RETRY,
    Delivery,
    DeliveryQueue,
    DeliveryResult,
)
from transforms.domain.webhooks.results import Outcome, SendResult

_ENDS: Final = {
    Outcome.DELIVERED: DELIVERED,
    Outcome.RETRY: RETRY,
    Outcome.REFUSED: REFUSED,
    Outcome.GONE: GONE,
}
# How long to leave a destination alone whose breaker is open; half of it to all of it.
_DELAY_S: Final = 5.0


class Outbox:
    """Whose turn it is. Made anew with each fold of the journal: then nothing is under way."""

    __slots__ = ("_agenda", "in_flight")

    def __init__(self, deliveries: Mapping[str, DeliveryQueue]) -> None:
        # Users by the action that is under way for them.
        self.in_flight: dict[str, str] = {}
        self._agenda = DueIndex()
        self.changed(deliveries, deliveries)

    def changed(self, deliveries: Mapping[str, DeliveryQueue], user_ids: Iterable[str]) -> None:
        """Something of these users was added, has ended or was put off."""
        for user_id in user_ids:
            heads = deliveries.get(user_id, EMPTY_QUEUE).heads()
            due = [one.due_ms for one in heads if one.action_id not in self.in_flight]
            self._agenda.set(user_id, min(due, default=None))

    def next_ms(self) -> int | None:
        """When the next one may be sent."""
        return self._agenda.next_ms()

    def due(self, deliveries: Mapping[str, DeliveryQueue], now_ms: int) -> list[tuple[str, Delivery]]:
        """User and delivery of all whose turn has come."""
        return [
            (user_id, one)
            for user_id in self._agenda.until(now_ms)
            for one in deliveries.get(user_id, EMPTY_QUEUE).heads()
            if one.due_ms <= now_ms and one.action_id not in self.in_flight
        ]

    def sent(self, deliveries: Mapping[str, DeliveryQueue], user_id: str, action_id: str) -> None:
        """It is under way."""
        self.in_flight[action_id] = user_id
        self.changed(deliveries, (user_id,))

    def finished(self, action_id: str) -> str:
        """It is not under way any more; its user."""
        return self.in_flight.pop(action_id)


def tried(user_id: str, action_id: str, result: SendResult) -> DeliveryResult:
    """What a try of the pool came to, as the shard takes it in."""
    chance = random.random()  # noqa: S311 - to spread tries, not to keep a secret
    ended, after_s = _ENDS[result.outcome], result.retry_after_s
    if ended == RETRY and result.attempts == 0:
        ended, after_s = DELAYED, _DELAY_S * (1 + chance) / 2 if after_s is None else after_s
    # Of the answer itself the beginning, too: that is where receivers say what they do not like.
    said = ": ".join(text for text in (result.error, result.excerpt) if text)
    return DeliveryResult(
        user_id, action_id, ended, result.attempts, result.status, said, after_s, result.latency_ms, chance
    )
