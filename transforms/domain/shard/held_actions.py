"""Actions that quiet hours held: they go out, or wait for their group, when quiet hours end (docs/rules.md)."""

from __future__ import annotations

import msgspec

from transforms.domain.base.calendar import rfc_3339, zone_of
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction, decode_action
from transforms.domain.rules.model import Rule
from transforms.domain.rules.state import HeldAction
from transforms.domain.shard import decisions, recheck
from transforms.domain.shard.decision_log import NO_MORE, More
from transforms.domain.shard.facts import ActionHeld, ActionReleased, SuppressionEnded
from transforms.domain.shard.firing import quiet_hours_end_ms, waits_until
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.shard.webhook_dispatch import NO_COORDINATE, WebhookDispatch, suppression


class HeldActions:
    """Ends the waiting of actions within one step."""

    __slots__ = ("_dispatch", "_scope")

    def __init__(self, scope: StepScope, dispatch: WebhookDispatch) -> None:
        self._scope = scope
        self._dispatch = dispatch

    def release(self, user_id: str) -> None:
        """Send the user's actions that quiet hours held until now, if the rule's ``recheck`` allows them.

        If it is quiet again, they are held for longer. Actions of a group's rules wait until it picks. Suppressions
        that are over end.
        """
        scope = self._scope
        state = scope.state.rule_states.of(user_id)
        for group in [name for name, until_ms in state.suppressed.items() if 0 < until_ms <= scope.now_ms]:
            scope.record(SuppressionEnded(user_id, group))
        for held in [held for held in state.held if not held.due_ms and held.until_ms <= scope.now_ms]:
            rule = scope.filters.by_name.get(held.rule)
            if rule is None:
                self.drop(user_id, held)
            elif not self.waits_again(user_id, held, rule) and not self.is_lost(user_id, held, rule):
                allowed = recheck.allows(scope, rule, held, user_id)
                if allowed is False:
                    scope.record(ActionReleased(user_id, held.action_id))
                elif allowed and rule.shared is None:
                    self.send(user_id, held, rule)
                elif allowed:
                    self._contend(user_id, held, rule)

    def waits_again(self, user_id: str, held: HeldAction, rule: Rule) -> bool:
        """Hold an action for longer, if it is quiet again."""
        until_ms = self.quiet_until_ms(held, rule)
        if until_ms is not None:
            self.hold(user_id, held, until_ms)
        return until_ms is not None

    def quiet_until_ms(self, held: HeldAction, rule: Rule) -> int | None:
        """When the quiet hours of a rule end that it is in for a user; None: it is not quiet."""
        zone = zone_of(held.zone)
        if rule.quiet_hours is None or zone is None:
            return None
        return quiet_hours_end_ms(rule.quiet_hours, self._scope.now_ms, zone)

    def hold(self, user_id: str, held: HeldAction, until_ms: int) -> None:
        """Have an action wait for the end of quiet hours."""
        held = msgspec.structs.replace(held, until_ms=until_ms, due_ms=0, waits=False)
        self._scope.record(ActionHeld(user_id, held))
        self._scope.log.held(decisions.HELD, user_id, held, f"until {rfc_3339(until_ms)}")

    def is_lost(self, user_id: str, held: HeldAction, rule: Rule) -> bool:
        """Drop an action that has expired or that a control record suppresses."""
        scope = self._scope
        if held.is_over(scope.now_ms):
            self.lose(user_id, held, decisions.EXPIRED, f"since {rfc_3339(held.expires_ms)}")
            scope.count(rule, "expired", "actions_expired")
            return True
        detail = suppression(scope.state.rule_states.of(user_id), rule.group, scope.now_ms)
        if detail is None:
            return False
        self.lose(user_id, held, decisions.SUPPRESSED, detail, more={"group": rule.group})
        scope.count(rule, "suppressed", "rules_suppressed")
        return True

    def lose(
        self, user_id: str, held: HeldAction, decision: str, detail: str | None = None, more: More = NO_MORE
    ) -> None:
        """End the waiting of an action that is not sent; ``more`` are further fields of the decision."""
        self._scope.record(ActionReleased(user_id, held.action_id))
        self._scope.log.held(decision, user_id, held, detail, more)

    def drop(self, user_id: str, held: HeldAction) -> None:
        """End the waiting of an action whose rule is not live any more."""
        self.lose(user_id, held, decisions.DROPPED, "no rule of this name is live")
        self._scope.result.counts["held_dropped"] += 1

    def send(self, user_id: str, held: HeldAction, rule: Rule) -> None:
        """Send an action that waited."""
        scope = self._scope
        scope.record(ActionReleased(user_id, held.action_id))
        was_quiet = held.until_ms > 0
        if was_quiet:
            scope.log.held(decisions.RELEASED, user_id, held)
        else:
            scope.log.held(decisions.FIRED, user_id, held, more={"event_time": held.at_ms})
        identified = (held.action_id, user_id, held.rule, held.version, decode_action(held.action))
        group = rule.group or ""
        fired = FiredAction(*identified, held.body, held.rule_set, held.at_ms, held.expires_ms, group)
        record = Record(NO_COORDINATE, NO_COORDINATE, scope.now_ms, user_id.encode(), b"")
        self._dispatch.send(fired, held.event_id, "", record)
        if was_quiet:
            scope.count(rule, "released", "held_released")

    def _contend(self, user_id: str, held: HeldAction, rule: Rule) -> None:
        """Have an action wait until its group picks; it came when quiet hours ended."""
        scope, received_ms = self._scope, held.until_ms
        held = msgspec.structs.replace(
            held,
            received_ms=received_ms,
            due_ms=pick_due_ms(scope, user_id, rule, received_ms),
            group=rule.group or "",
            waits=False,
        )
        scope.record(ActionHeld(user_id, held))
        scope.count(rule, "pending", "actions_pending")
        if scope.log.is_on:
            scope.log.held(decisions.PENDING, user_id, held, waits_until(held), {"group": rule.group})


def pick_due_ms(scope: StepScope, user_id: str, rule: Rule, received_ms: int) -> int:
    """When a rule's group picks from what came at ``received_ms``: with what waits already, or later.

    Both are on the clock of the stream.
    """
    within_ms = rule.shared.within.ms if rule.shared is not None and rule.shared.within is not None else 0
    by_name, due_ms = scope.filters.by_name, received_ms + within_ms
    for held in scope.state.rule_states.of(user_id).held:
        other = by_name.get(held.rule)
        if received_ms < held.due_ms < due_ms and other is not None and other.group == rule.group:
            due_ms = held.due_ms
    return due_ms
