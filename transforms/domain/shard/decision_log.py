"""Collects the decisions of one step for the decision log (``decisions.py``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from transforms.domain.rules.actions import FiredAction, decode_action
from transforms.domain.rules.model import Action, Rule, WebhookAction
from transforms.domain.rules.state import HeldAction, OpenSequence
from transforms.domain.shard import decisions
from transforms.domain.shard.decisions import Decision
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.shard.step_result import StepResult
from transforms.domain.webhooks.delivery_queue import Delivery

More = Mapping[str, Any]  # further fields of a decision, by name
NO_MORE: Final[More] = {}
_About = OpenSequence | HeldAction | Delivery


class DecisionLog:
    """The decisions of one step; without a decision log its methods do nothing.

    Attributes:
        is_on: whether there is a decision log.
        is_sampling: whether it also gets rules that did not fire.
        rule_set: number of the rule set that is live.
    """

    __slots__ = ("_decisions", "_now_ms", "_sample", "is_on", "is_sampling", "rule_set")

    def __init__(self, now_ms: int, settings: ShardSettings, result: StepResult) -> None:
        self._now_ms = now_ms
        self._decisions = result.decisions
        self._sample = settings.decision_sample or 0.0
        self.is_on = settings.decision_sample is not None
        self.is_sampling = self._sample > 0
        self.rule_set = 0

    def event(
        self,
        decision: str,
        rule: Rule,
        fields: dict[str, Any],
        detail: str | None = None,
        fired: FiredAction | None = None,
        more: More = NO_MORE,
    ) -> None:
        """Log a decision about a rule, or with ``fired`` about an action of it; ``fields`` are the event's.

        ``more`` are further fields of the decision.
        """
        if not self.is_on:
            return
        self._decisions.append(
            Decision(
                decision=decision,
                time=self._now_ms,
                user_id=fields["user_id"],
                event_id=fields["event_id"],
                event_name=fields["event_name"],
                event_time=fields["timestamp"],
                rule=rule.name,
                version=rule.version,
                rule_set=self.rule_set,
                action=fired.action.name if fired else None,
                action_id=fired.action_id if fired else None,
                destination=_destination_of(fired.action) if fired else None,
                detail=detail,
                **more,
            )
        )

    def sampled(self, user_id: str, event_id: str, rules: Iterable[Rule], since: int) -> list[Rule]:
        """A sample of the rules about which nothing was logged since there were ``since`` decisions."""
        logged = {decision.rule for decision in self._decisions[since:]}
        silent = [rule for rule in rules if rule.name not in logged]
        return decisions.sampled(user_id, event_id, silent, self._sample)

    def sequence(self, decision: str, user_id: str, sequence: OpenSequence, detail: str) -> None:
        """Log the end of a sequence that fires nothing."""
        self._add(decision, user_id, sequence, detail, event_time=sequence.begun_ms, rule_set=self.rule_set)

    def held(
        self, decision: str, user_id: str, held: HeldAction, detail: str | None = None, more: More = NO_MORE
    ) -> None:
        """Log a decision about an action that waits; ``more`` are further fields of the decision."""
        if not self.is_on:
            return
        action = decode_action(held.action)
        self._add(
            decision,
            user_id,
            held,
            detail,
            version=held.version,
            rule_set=held.rule_set,
            action=action.name,
            action_id=held.action_id,
            destination=_destination_of(action),
            **more,
        )

    def delivery(
        self, decision: str, user_id: str, delivery: Delivery, detail: str = "", latency_ms: int | None = None
    ) -> None:
        """Log a decision about a webhook; ``latency_ms`` is that of its last request."""
        self._add(
            decision,
            user_id,
            delivery,
            detail or None,
            version=delivery.version,
            action=delivery.action,
            action_id=delivery.action_id,
            destination=delivery.destination,
            attempts=delivery.attempts,
            latency_ms=latency_ms,
            status=delivery.status,
        )

    def _add(self, decision: str, user_id: str, about: _About, detail: str | None, **fields: Any) -> None:
        if self.is_on:
            all_fields = {"event_id": about.event_id, "rule": about.rule, "detail": detail, **fields}
            self._decisions.append(Decision(decision=decision, time=self._now_ms, user_id=user_id, **all_fields))


def _destination_of(action: Action) -> str | None:
    return action.destination if isinstance(action, WebhookAction) else None
