"""The webhooks of a shard that are due or in flight: what a worker remembers beside the stored delivery queues."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from transforms.adapters.ledger.delivery_ledger import ShardLedger
from transforms.adapters.webhook_sender.send_pool import SendPool
from transforms.domain.base.due_index import DueIndex
from transforms.domain.webhooks import delivery_queue
from transforms.domain.webhooks.delivery_queue import EMPTY_QUEUE, DeliveryQueue, DeliveryResult
from transforms.domain.webhooks.results import SendResult

# The longest pause before a webhook that was not attempted is attempted again; the shortest is half of it.
_DELAY_S: Final = 5.0


class Outbox:
    """Which deliveries are due and which are in flight; when the journal is folded anew, none is in flight.

    Attributes:
        in_flight: users by the action that is in flight for them.
        found: results that the ledger of deliveries had, for the next step.
    """

    __slots__ = ("_due", "found", "in_flight")

    def __init__(self, deliveries: Mapping[str, DeliveryQueue]) -> None:
        self.in_flight: dict[str, str] = {}
        self.found: list[DeliveryResult] = []
        self._due = DueIndex()
        self.changed(deliveries, deliveries)

    def changed(self, deliveries: Mapping[str, DeliveryQueue], user_ids: Iterable[str]) -> None:
        """Take in the queues of these users, to which something was added, or in which something ended or moved."""
        for user_id in user_ids:
            heads = deliveries.get(user_id, EMPTY_QUEUE).heads()
            due = [delivery.due_ms for delivery in heads if delivery.action_id not in self.in_flight]
            self._due.set(user_id, min(due, default=None))

    def next_ms(self) -> int | None:
        """When the next delivery is due."""
        return self._due.next_ms()

    def due(self, deliveries: Mapping[str, DeliveryQueue], now_ms: int) -> list[tuple[str, delivery_queue.Delivery]]:
        """User and delivery of all that are due and not in flight."""
        return [
            (user_id, delivery)
            for user_id in self._due.until(now_ms)
            for delivery in deliveries.get(user_id, EMPTY_QUEUE).heads()
            if delivery.due_ms <= now_ms and delivery.action_id not in self.in_flight
        ]

    def sent(self, deliveries: Mapping[str, DeliveryQueue], user_id: str, action_id: str) -> None:
        """Note that a delivery is in flight."""
        self.in_flight[action_id] = user_id
        self.changed(deliveries, (user_id,))

    def send_due(
        self, pool: SendPool, deliveries: Mapping[str, DeliveryQueue], now_ms: int, ledger: ShardLedger | None = None
    ) -> None:
        """Hand the pool what is due and not in the ledger.

        What it has no room for stays due, and so does everything while the shard may not send.
        """
        next_ms = self.next_ms()
        if next_ms is None or next_ms > now_ms or (ledger is not None and not ledger.is_ready()):
            return
        for user_id, delivery in self.due(deliveries, now_ms):
            action_id = delivery.action_id
            settled = None if ledger is None else ledger.find(delivery)
            if settled is not None:
                pool.cancel(action_id)  # of a time when another worker had not taken the shard yet
                self.found.append(settled.result(user_id, action_id))
                self.sent(deliveries, user_id, action_id)
                continue
            guard = None if ledger is None else ledger.call(delivery)
            if pool.request(action_id, delivery.destination, delivery.body, delivery.expires_ms, guard):
                self.sent(deliveries, user_id, action_id)

    def poll(self, pool: SendPool) -> list[DeliveryResult]:
        """The results that the pool has by now, after those that the ledger had."""
        found, self.found = self.found, []
        for result in found:
            self.in_flight.pop(result.action_id, None)
        return found + self._delivery_results(pool.poll(self.in_flight)) if self.in_flight else found

    def wait(self, pool: SendPool) -> list[DeliveryResult]:
        """The results of everything in flight; what would be attempted again later counts as refused."""
        later = (delivery_queue.RETRY, delivery_queue.DELAYED)
        results = self._delivery_results([(action_id, pool.wait(action_id)) for action_id in self.in_flight])
        return [
            replace(result, outcome=delivery_queue.REFUSED) if result.outcome in later else result for result in results
        ]

    def _delivery_results(self, results: list[tuple[str, SendResult]]) -> list[DeliveryResult]:
        """The pool's results as inputs of a step; they are no longer in flight."""
        return [delivery_result(self.in_flight.pop(action_id), action_id, result) for action_id, result in results]

    def withdraw(self, pool: SendPool, user_id: str) -> None:
        """Send no more of a user's webhooks, and forget those in flight."""
        self.found = [result for result in self.found if result.user_id != user_id]
        for action_id in [action_id for action_id, owner in self.in_flight.items() if owner == user_id]:
            pool.withdraw(action_id)
            del self.in_flight[action_id]


def delivery_result(user_id: str, action_id: str, result: SendResult) -> DeliveryResult:
    """A result of the pool as an input of the shard's step."""
    chance = random.random()  # noqa: S311 - to spread attempts, not to keep a secret
    outcome, retry_after_s = result.outcome.value, result.retry_after_s  # both have the same names
    if outcome == delivery_queue.RETRY and result.attempts == 0:
        outcome = delivery_queue.DELAYED
        retry_after_s = _DELAY_S * (1 + chance) / 2 if retry_after_s is None else retry_after_s
    # The beginning of the answer, too: it is where receivers say why they refuse.
    message = ": ".join(text for text in (result.error, result.excerpt) if text)
    return DeliveryResult(
        user_id, action_id, outcome, result.attempts, result.status, message, retry_after_s, result.latency_ms, chance
    )
