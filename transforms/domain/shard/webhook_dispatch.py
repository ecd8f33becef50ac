"""Webhooks of one step: into their user's queue, and out of it when they have ended (docs/delivery.md)."""

from __future__ import annotations

import msgspec

from transforms.domain.base.calendar import rfc_3339
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.dead_letter import LostAction
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.rules.model import Action, KafkaAction, WebhookAction
from transforms.domain.rules.state import RuleState
from transforms.domain.shard import decisions
from transforms.domain.shard.facts import (
    DeliveryQueued,
    DeliveryRescheduled,
    DeliverySettled,
    DestinationSwitched,
    LedgerRead,
)
from transforms.domain.shard.step_result import DELIVERY, WEBHOOK
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.webhooks import delivery_queue
from transforms.domain.webhooks.delivery_queue import EMPTY_QUEUE, Delivery, DeliveryResult
from transforms.domain.webhooks.ledger import LedgerPosition
from transforms.domain.webhooks.retries import RetrySchedule

NO_COORDINATE = -1  # partition and offset of a record that Kafka never had


class WebhookDispatch:
    """The webhooks' part of one step of a shard."""

    __slots__ = ("_log", "_record", "_result", "_scope", "_state")

    def __init__(self, scope: StepScope) -> None:
        self._scope = scope
        self._state = scope.state
        self._record = scope.record
        self._result = scope.result
        self._log = scope.log

    def _count(self, destination: str, outcome: str, metric: str | None = None) -> None:
        self._result.counts[f"action.webhook.{destination}.{outcome}"] += 1
        if metric is not None:
            self._result.counts[metric] += 1

    def send(self, fired: FiredAction, event_id: str, topic: str, record: Record) -> None:
        """Send an action: a webhook joins its user's queue, other actions leave with the step.

        Args:
            topic: topic of ``record``, the record of the event, for dead letters.
        """
        action = fired.action
        if isinstance(action, KafkaAction) and action.topic is not None:
            # Rules are checked when they become live. Held actions and stored sets may be older than what is allowed.
            problem, reason = self._scope.settings.action_topics.problem(action.topic), reasons.ACTION_TOPIC_REFUSED
            if problem is None and self._scope.is_topic_missing(action.topic):
                problem, reason = f"topic {action.topic!r} does not exist", reasons.ACTION_TOPIC_MISSING
            if problem is not None:
                self._result.reject(topic, record, reason, f"action {action.name!r}: {problem}", fired.rule)
                return
        self._result.counts["actions"] += 1
        self._result.decided_actions.append(fired)
        if record.partition != NO_COORDINATE:
            self._result.produced_ms.append(record.timestamp_ms)
        if not isinstance(fired.action, WebhookAction):
            self._result.counts[_emitted(fired.action)] += 1
            self._result.actions.append(fired)
            return
        delivery = Delivery(
            fired.action_id,
            fired.action.destination,
            fired.rule,
            fired.rule_version,
            fired.action.name,
            event_id,
            fired.body,
            self._scope.now_ms,
            self._scope.now_ms,
            expires_ms=fired.expires_ms,
            group=fired.group,
        )
        self._queue(fired.user_id, delivery, topic, record)

    def redrive(self, user_id: str, delivery: Delivery) -> None:
        """Queue a lost webhook again, unless it is in its user's queue."""
        waiting = self._state.deliveries.get(user_id, EMPTY_QUEUE).find(delivery.action_id)
        if waiting is not None:
            self._result.counts["redrives_ignored"] += 1
            # After a restore it may wait for what the ledger says. The refusal there came before this record.
            self._record(DeliveryRescheduled(user_id, msgspec.structs.replace(waiting, redrive=delivery.redrive)))
            return
        self._result.counts["redrives"] += 1
        rule = self._scope.filters.by_name.get(delivery.rule)
        if rule is not None and rule.expires is not None:
            delivery = msgspec.structs.replace(delivery, expires_ms=self._scope.now_ms + rule.expires.ms)
        detail = self._suppression(user_id, delivery)
        if detail is None:
            self._queue(user_id, delivery)
        else:
            self._drop(user_id, delivery, decisions.SUPPRESSED, detail)

    def _queue(self, user_id: str, delivery: Delivery, topic: str = "", record: Record | None = None) -> None:
        problem = self._why_not(user_id, delivery)
        if problem is not None:
            self._count(delivery.destination, "dropped")
            self._lose(user_id, delivery, *problem, topic, record)
            return
        self._record(DeliveryQueued(user_id, delivery))
        self._result.users_with_new_deliveries[user_id] = None
        self._count(delivery.destination, "queued", "deliveries_queued")

    def _why_not(self, user_id: str, delivery: Delivery) -> tuple[str, str] | None:
        """Reason and detail for the dead letter of a delivery that cannot be queued."""
        name = delivery.destination
        if len(delivery.body) > delivery_queue.MAX_BODY_BYTES:
            return reasons.ACTION_TOO_LARGE, f"{len(delivery.body)} bytes, allowed are {delivery_queue.MAX_BODY_BYTES}"
        if name not in self._scope.settings.destinations:
            return reasons.DESTINATION_UNKNOWN, f"there is no destination {name!r} in the destinations file"
        if name in self._state.disabled:
            return reasons.DESTINATION_DISABLED, f"destination {name!r} is disabled"
        if self._state.deliveries.get(user_id, EMPTY_QUEUE).is_full(name, delivery.nbytes):
            allowed = f"{delivery_queue.MAX_QUEUED} and {delivery_queue.MAX_QUEUE_BYTES} bytes"
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
        """Add the dead letter of a webhook that ended undelivered."""
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
            record = Record(NO_COORDINATE, NO_COORDINATE, self._scope.now_ms, user_id.encode(), b"")
        self._result.reject(topic, record, reason, detail, delivery.rule, action)

    def switch(self, destination: str, enabled: bool) -> None:
        """Enable or disable a destination; a disabled one loses the webhooks that wait for it."""
        if enabled is (destination not in self._state.disabled):
            return
        self._record(DestinationSwitched(destination, enabled))
        self._result.counts["destinations_enabled" if enabled else "destinations_disabled"] += 1
        if enabled:
            return
        for user_id, queue in list(self._state.deliveries.items()):
            for delivery in list(queue.queues.get(destination, ())):
                self._result.users_with_new_deliveries[user_id] = None
                self._record(DeliverySettled(user_id, delivery.action_id))
                self._count(destination, "dropped")
                self._lose(user_id, delivery, reasons.DESTINATION_DISABLED, f"destination {destination!r} is disabled")

    def note_ledger(self, position: LedgerPosition) -> None:
        """Keep how far the state contains the ledger of deliveries."""
        self._record(LedgerRead(position.topic, position.offset))

    def expire(self) -> None:
        """Drop the webhooks that have expired. Of those that are being sent the results say what became of them."""
        for user_id in self._state.deliveries.expiry_due.until(self._scope.now_ms):
            for delivery in list(self._state.deliveries[user_id]):
                if delivery.is_over(self._scope.now_ms) and delivery.action_id not in self._scope.in_flight:
                    self._end(user_id, delivery, decisions.EXPIRED, _expired(delivery))

    def suppress(self, user_id: str) -> None:
        """Drop the webhooks of a user that are suppressed; those that are being sent get no further try."""
        for delivery in list(self._state.deliveries.get(user_id, EMPTY_QUEUE)):
            detail = self._suppression(user_id, delivery)
            if detail is not None and delivery.action_id in self._scope.in_flight:
                self._result.stopped_deliveries.append(delivery.action_id)
            elif detail is not None:
                self._end(user_id, delivery, decisions.SUPPRESSED, detail)

    def _suppression(self, user_id: str, delivery: Delivery) -> str | None:
        """The detail of the decision if a webhook is suppressed; its group is that of its rule, if that is live."""
        state = self._state.rule_states.of(user_id)
        if not state.suppressed:
            return None
        rule = self._scope.filters.by_name.get(delivery.rule)
        group = delivery.group or None if rule is None else rule.group
        return suppression(state, group, self._scope.now_ms)

    def _end(self, user_id: str, delivery: Delivery, decision: str, detail: str) -> None:
        """End a webhook that is not sent any more: no dead letter, as sending it again is not wanted."""
        self._result.users_with_new_deliveries[user_id] = None
        self._record(DeliverySettled(user_id, delivery.action_id))
        self._drop(user_id, delivery, decision, detail)

    def _drop(self, user_id: str, delivery: Delivery, decision: str, detail: str) -> None:
        self._count(delivery.destination, decision, f"deliveries_{decision}")
        self._log.delivery(decision, user_id, delivery, detail)

    def handle_delivery_result(self, result: DeliveryResult) -> None:
        """Settle a webhook or schedule its next attempt; nothing happens if it has ended in the meantime."""
        user_id = result.user_id
        self._result.users_with_new_deliveries[user_id] = None
        delivery = self._state.deliveries.get(user_id, EMPTY_QUEUE).find(result.action_id)
        if delivery is None:
            return
        name = delivery.destination
        if result.is_found:
            self._result.counts["deliveries_found"] += 1
        elif result.attempts:
            self._result.counts["delivery_attempts"] += result.attempts
            self._result.durations_ms.append((WEBHOOK, result.latency_ms))
        schedule = self._scope.settings.destinations.get(name)
        is_delayed = result.outcome == delivery_queue.DELAYED
        if not is_delayed:
            delivery = msgspec.structs.replace(
                delivery,
                failures=delivery.failures + 1,
                attempts=delivery.attempts + result.attempts,
                first_ms=delivery.first_ms or self._scope.now_ms,
                status=result.status,
                message=result.message,
            )
        if result.outcome in (delivery_queue.RETRY, delivery_queue.DELAYED):
            detail = self._suppression(user_id, delivery)
            if detail is not None:
                self._end(user_id, delivery, decisions.SUPPRESSED, detail)
                return
            if delivery.is_over(self._scope.now_ms):
                self._end(user_id, delivery, decisions.EXPIRED, _expired(delivery))
                return
        due_ms = None if schedule is None else _next_attempt_ms(delivery, result, schedule, self._scope.now_ms)
        if due_ms is not None:
            outcome = "delayed" if is_delayed else "retried"
            self._count(name, outcome, f"deliveries_{outcome}")
            self._record(DeliveryRescheduled(user_id, msgspec.structs.replace(delivery, due_ms=due_ms)))
            if not is_delayed:
                self._log.delivery(decisions.RETRIED, user_id, delivery, result.message, result.latency_ms)
            return
        self._record(DeliverySettled(user_id, result.action_id))
        if result.outcome == delivery_queue.DELIVERED:
            self._count(name, "delivered", "deliveries_delivered")
            if not result.is_found:
                self._result.durations_ms.append((DELIVERY, self._scope.now_ms - delivery.decided_ms))
            detail = "found in the ledger of deliveries" if result.is_found else ""
            self._log.delivery(decisions.DELIVERED, user_id, delivery, detail, result.latency_ms)
            return
        outcome = "given_up" if result.outcome in (delivery_queue.RETRY, delivery_queue.DELAYED) else "refused"
        self._count(name, outcome, f"deliveries_{outcome}")
        reason, detail = reasons.UNDELIVERED, f"after {delivery.attempts} attempts: {result.message}"
        if result.outcome == delivery_queue.GONE:
            self._result.gone_destinations.append(name)
            # It belongs to the letters of the webhooks that waited behind it.
            reason = reasons.DESTINATION_DISABLED
        self._lose(user_id, delivery, reason, detail, latency_ms=result.latency_ms)


def suppression(state: RuleState, group: str | None, now_ms: int) -> str | None:
    """The detail of the decision if a control record suppresses a group's actions, or those of all rules."""
    name = state.is_suppressed(group, now_ms) if state.suppressed else None
    if name is None:
        return None
    until_ms = state.suppressed[name]
    return f"group {name}{f', until {rfc_3339(until_ms)}' if until_ms else ''}"


def _expired(delivery: Delivery) -> str:
    return f"since {rfc_3339(delivery.expires_ms)}"


def _emitted(action: Action) -> str:
    """The metric that counts an action that leaves with the step."""
    if isinstance(action, KafkaAction):
        return f"action.kafka.{action.topic or 'default'}.emitted"
    return "action.debug.log.emitted"


def _next_attempt_ms(delivery: Delivery, result: DeliveryResult, schedule: RetrySchedule, now_ms: int) -> int | None:
    """When the next attempt is due; None: there is none."""
    if result.outcome == delivery_queue.DELAYED:
        due_ms = now_ms + round(1000 * (result.retry_after_s or 0))
        return due_ms if due_ms <= (delivery.first_ms or delivery.decided_ms) + schedule.give_up_after.ms else None
    if result.outcome != delivery_queue.RETRY:
        return None
    next_s = schedule.next_try_s(
        delivery.first_ms / 1000, now_ms / 1000, delivery.failures, result.retry_after_s, result.chance
    )
    return None if next_s is None else round(1000 * next_s)
