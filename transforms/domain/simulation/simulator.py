"""The world outside, where rules are tried out: every destination is there, and takes each webhook at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from transforms.domain.rules.model import Rule, WebhookAction
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step_result import StepResult
from transforms.domain.webhooks.delivery_queue import DELIVERED, EMPTY_QUEUE, DeliveryResult
from transforms.domain.webhooks.retries import RetrySchedule


@dataclass(frozen=True, slots=True)
class SentAction:
    """An action that went out; ``body`` is JSON."""

    action_id: str
    user_id: str
    rule: str
    version: int
    action: str
    body: bytes


def destinations_of(rules: Iterable[Rule]) -> dict[str, RetrySchedule]:
    """Every destination that rules name."""
    actions = [action for rule in rules for action in rule.actions]
    return {action.destination: RetrySchedule() for action in actions if isinstance(action, WebhookAction)}


def sent_by(done: StepResult, view: ShardState) -> Iterator[SentAction]:
    """What a step sent, its webhooks last."""
    for one in done.actions:
        yield SentAction(one.action_id, one.user_id, one.rule, one.rule_version, one.action.name, one.body)
    for user_id in done.users_with_new_deliveries:
        for two in view.deliveries.get(user_id, EMPTY_QUEUE):
            yield SentAction(two.action_id, user_id, two.rule, two.version, two.action, two.body)


def delivered(done: StepResult, view: ShardState) -> list[DeliveryResult]:
    """That the webhooks of a step have arrived, for the next step."""
    return [
        DeliveryResult(user_id, one.action_id, DELIVERED)
        for user_id in done.users_with_new_deliveries
        for one in view.deliveries.get(user_id, EMPTY_QUEUE)
    ]
