"""Webhooks on their way: into their user's queue, and out of it when they have ended (docs/delivery.md)."""

from __future__ import annotations

import msgspec

from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.dead_letter import LostAction
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.rules.model import Action, KafkaAction, WebhookAction
from transforms.domain.shard import decisions
from transforms.domain.shard.decision_log import DecisionLog
from transforms.domain.shard.shard_state import QUEUED, RESCHEDULED, SETTLED, SWITCHED, ShardState
from transforms.domain.shard.step_result import DELIVERY, WEBHOOK, ShardSettings, StepResult
from transforms.domain.webhooks.delivery_queue import (
    DELAYED,
    DELIVERED,
    EMPTY_QUEUE,
    GONE,
    MAX_BODY_BYTES,
    MAX_QUEUE_BYTES,
    MAX_QUEUED,
    RETRY,
    Delivery,
    DeliveryResult,
)
from transforms.domain.webhooks.retries import RetrySchedule

NO_COORDINATE = -1


class WebhookDispatch:
    """The webhooks' part of one step of a shard."""

    def __init__(
        self, view: ShardState, now_ms: int, settings: ShardSettings, step: StepResult, log: DecisionLog
    ) -> None:
        self._view = view
        self._now_ms = now_ms
        self._settings = settings
        self._step = step
        self._log = log

    def _record(self, *fact: object) -> None:
        self._view.apply(self._now_ms, fact)
        self._step.facts.append(fact)

    def _count(self, destination: str, outcome: str, name: str | None = None) -> None:
        self._step.counts[f"action.webhook.{destination}.{outcome}"] += 1
        if name is not None:
            self._step.counts[name] += 1

    def go_out(self, fired: FiredAction, event_id: str, topic: str, record: Record) -> None:
        """Hand an action over; a webhook goes to its user's queue."""
        self._step.counts["actions"] += 1
        self._step.decided_actions.append(fired)
        if record.partition != NO_COORDINATE:
            self._step.produced_ms.append(record.timestamp_ms)
        if not isinstance(fired.action, WebhookAction):
            self._step.counts[_emitted(fired.action)] += 1
            self._step.actions.append(fired)
            return
        delivery = Delivery(
            fired.action_id,
            fired.action.destination,
            fired.rule,
            fired.rule_version,
            fired.action.name,
            event_id,
            fired.body,
            self._now_ms,
            self._now_ms,
        )
        self._queue(fired.user_id, delivery, topic, record)

    def redrive(self, user_id: str, delivery: Delivery) -> None:
        """Send again what was lost, at the end of its user's queue; nothing if it waits there."""
        if self._view.deliveries.get(user_id, EMPTY_QUEUE).find(delivery.action_id) is not None:
            self._step.counts["redrives_ignored"] += 1
            return
        self._step.counts["redrives"] += 1
        self._queue(user_id, delivery)

    def _queue(self, user_id: str, delivery: Delivery, topic: str = "", record: Record | None = None) -> None:
        problem = self._problem_with(user_id, delivery)
        if problem is not None:
            self._count(delivery.destination, "dropped")
            self._lose(user_id, delivery, *problem, topic, record)
            return
        self._record(QUEUED, user_id, delivery)
        self._step.users_with_new_deliveries[user_id] = None
        self._count(delivery.destination, "queued", "deliveries_queued")

    def _problem_with(self, user_id: str, delivery: Delivery) -> tuple[str, str] | None:
        name = delivery.destination
        if len(delivery.body) > MAX_BODY_BYTES:
            return reasons.ACTION_TOO_LARGE, f"{len(delivery.body)} bytes, allowed are {MAX_BODY_BYTES}"
        if name not in self._settings.destinations:
            return reasons.DESTINATION_UNKNOWN, f"there is no destination {name!r} in the destinations file"
        if name in self._view.disabled:
            return reasons.DESTINATION_DISABLED, f"destination {name!r} is disabled"
        if self._view.deliveries.get(user_id, EMPTY_QUEUE).is_full(name, delivery.nbytes):
            allowed = f"{MAX_QUEUED} and {MAX_QUEUE_BYTES} bytes"
            return reasons.DELIVERY_QUEUE_FULL, f"too many of this user wait for {name!r}, allowed are {allowed}"
        return None

    def _lose(
        self,
        user_id: str,
        delivery: Delivery,
        reason: str,
        detail: str,
        topic: str = "",
        record: Record | None = None,
        latency_ms: int | None = None,
    ) -> None:
        """A webhook has ended without having been delivered: a dead letter of it."""
        self._log.delivery(decisions.UNDELIVERED, user_id, delivery, f"{reason}: {detail}", latency_ms)
        action = LostAction(
            delivery.action_id,
            delivery.version,
            delivery.action,
            delivery.destination,
            user_id,
            delivery.event_id,
            delivery.body,
            delivery.decided_ms,
            delivery.attempts,
            delivery.status,
        )
        if record is None:
            record = Record(NO_COORDINATE, NO_COORDINATE, self._now_ms, user_id.encode(), b"")
        self._step.reject(topic, record, reason, detail, delivery.rule, action)

    def switch(self, destination: str, enabled: bool) -> None:
        """Enable or disable a destination; what waits for one that is disabled has ended."""
        if enabled is (destination not in self._view.disabled):
            return
        self._record(SWITCHED, destination, enabled)
        self._step.counts["destinations_enabled" if enabled else "destinations_disabled"] += 1
        if enabled:
            return
        for user_id, deliveries in list(self._view.deliveries.items()):
            for one in list(deliveries.queues.get(destination, ())):
                self._step.users_with_new_deliveries[user_id] = None
                self._record(SETTLED, user_id, one.action_id)
                self._count(destination, "dropped")
                self._lose(user_id, one, reasons.DESTINATION_DISABLED, f"destination {destination!r} is disabled")

    def tried(self, tried: DeliveryResult) -> None:
        """Take in what a try to deliver a webhook came to; nothing if it has ended meanwhile."""
        user_id = tried.user_id
        self._step.users_with_new_deliveries[user_id] = None
        delivery = self._view.deliveries.get(user_id, EMPTY_QUEUE).find(tried.action_id)
        if delivery is None:
            return
        name = delivery.destination
        self._step.counts["delivery_attempts"] += tried.attempts
        if tried.attempts:
            self._step.durations_ms.append((WEBHOOK, tried.latency_ms))
        schedule = self._settings.destinations.get(delivery.destination)
        if tried.ended != DELAYED:
            delivery = msgspec.structs.replace(
                delivery,
                failures=delivery.failures + 1,
                attempts=delivery.attempts + tried.attempts,
                first_ms=delivery.first_ms or self._now_ms,
                status=tried.status,
                said=tried.said,
            )
        due_ms = None if schedule is None else _next_try_ms(delivery, tried, schedule, self._now_ms)
        if due_ms is not None:
            outcome = "delayed" if tried.ended == DELAYED else "retried"
            self._count(name, outcome, f"deliveries_{outcome}")
            self._record(RESCHEDULED, user_id, msgspec.structs.replace(delivery, due_ms=due_ms))
            if tried.ended != DELAYED:
                self._log.delivery(decisions.RETRIED, user_id, delivery, tried.said, tried.latency_ms)
            return
        self._record(SETTLED, user_id, tried.action_id)
        if tried.ended == DELIVERED:
            self._count(name, "delivered", "deliveries_delivered")
            self._step.durations_ms.append((DELIVERY, self._now_ms - delivery.decided_ms))
            self._log.delivery(decisions.DELIVERED, user_id, delivery, "", tried.latency_ms)
            return
        outcome = "given_up" if tried.ended in (RETRY, DELAYED) else "refused"
        self._count(name, outcome, f"deliveries_{outcome}")
        if tried.ended == GONE:
            self._step.gone_destinations.append(delivery.destination)
        detail = f"after {delivery.attempts} attempts: {tried.said}"
        self._lose(user_id, delivery, reasons.UNDELIVERED, detail, latency_ms=tried.latency_ms)


def _emitted(action: Action) -> str:
    """The counter of an action that leaves through the runner."""
    if isinstance(action, KafkaAction):
        return f"action.kafka.{action.topic or 'default'}.emitted"
    return "action.debug.log.emitted"


def _next_try_ms(delivery: Delivery, tried: DeliveryResult, schedule: RetrySchedule, now_ms: int) -> int | None:
    """When to try again; None: it has ended."""
    if tried.ended == DELAYED:
        due_ms = now_ms + round(1000 * (tried.after_s or 0))
        return due_ms if due_ms <= (delivery.first_ms or delivery.decided_ms) + schedule.give_up_after.ms else None
    if tried.ended != RETRY:
        return None
    next_s = schedule.next_try_s(
        delivery.first_ms / 1000, now_ms / 1000, delivery.failures, tried.after_s, tried.chance
    )
    return None if next_s is None else round(1000 * next_s)
