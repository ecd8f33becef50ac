"""Firing a rule: cooldown, cap, suppression, quiet hours, and the actions that leave (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from transforms.domain.base import exact_json
from transforms.domain.base.calendar import quiet_until_ms, rfc_3339
from transforms.domain.events import dead_letter as reasons
from transforms.domain.rules import frequency
from transforms.domain.rules import state as rule_state
from transforms.domain.rules.actions import FiredAction, encode_action
from transforms.domain.rules.model import DROP, Cap, QuietHours, Rule
from transforms.domain.rules.state import MAX_BYTES, MAX_COOLDOWN_KEYS, MAX_HELD, HeldAction, RuleState
from transforms.domain.shard import decisions
from transforms.domain.shard.decision_log import NO_MORE
from transforms.domain.shard.facts import ActionHeld, FiringsForgotten, RuleFired
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.shard.trigger import BodyTooLarge, Trigger
from transforms.domain.shard.webhook_dispatch import WebhookDispatch, suppression

DROPPED: Final = -1  # in place of the end of quiet hours


@dataclass(slots=True)
class Contender:
    """A rule of a group that would fire, with the arguments of ``Firing.fire``."""

    rule: Rule
    trigger: Trigger
    at_ms: int
    received_ms: int
    key: str | None
    begun: dict[str, Any] | None


class Firing:
    """Fires rules within one step; of a group's rules it leaves the decision to ``GroupPicks``.

    Attributes:
        contenders: rules of groups that would fire, in the order in which they came.
    """

    __slots__ = ("_dispatch", "_scope", "contenders")

    def __init__(self, scope: StepScope, dispatch: WebhookDispatch) -> None:
        self._scope = scope
        self._dispatch = dispatch
        self.contenders: list[Contender] = []

    def fire(
        self,
        rule: Rule,
        trigger: Trigger,
        at_ms: int,
        received_ms: int,
        key: str | None,
        begun: dict[str, Any] | None = None,
    ) -> None:
        """Fire a rule unless its cooldown or cap stops it; quiet hours hold its actions.

        Args:
            at_ms: event time of the firing.
            received_ms: its record time.
            key: value of the cooldown's key.
            begun: the event that began the sequence.
        """
        contender = Contender(rule, trigger, at_ms, received_ms, key, begun)
        if rule.group is not None and rule.shared is not None:  # the second takes pydantic long
            self.contenders.append(contender)
            return
        if self.is_stopped(contender) or self.is_suppressed(contender):
            return
        until_ms = self.quiet_until_ms(contender)
        if until_ms == DROPPED:
            return
        self._scope.count(rule, "fired")
        self.remember(contender)
        if until_ms is None:
            self.send(contender)
        else:
            self.hold(contender, until_ms=until_ms)

    def quiet_until_ms(self, contender: Contender) -> int | None:
        """Until when quiet hours hold a rule's actions, ``DROPPED`` if they drop them; None: it is not quiet."""
        scope, rule, trigger = self._scope, contender.rule, contender.trigger
        if (rule.quiet_hours or (rule.cap and rule.cap.per)) and rule_state.has_bad_zone(
            rule.time_zone, trigger.profile
        ):
            scope.result.counts["time_zones_unknown"] += 1
        if rule.quiet_hours is None:
            return None
        until_ms = quiet_hours_end_ms(
            rule.quiet_hours, scope.now_ms, rule_state.zone_for(rule.time_zone, trigger.profile)
        )
        if until_ms is None or rule.quiet_hours.mode != DROP:
            return until_ms
        scope.count(rule, "dropped", "rules_dropped")
        if scope.log.is_on:
            scope.log.event(decisions.DROPPED, rule, trigger.fields, f"quiet hours until {rfc_3339(until_ms)}")
        return DROPPED

    def send(self, contender: Contender) -> None:
        """Send the actions of a rule that fires."""
        for action in self._actions(contender):
            self._scope.log.event(decisions.FIRED, contender.rule, contender.trigger.fields, None, action)
            trigger = contender.trigger
            self._dispatch.send(action, trigger.event_id, trigger.topic, trigger.record)

    def hold(self, contender: Contender, *, until_ms: int = 0, due_ms: int = 0, is_counted: bool = True) -> None:
        """Have the actions of a rule wait: for the end of quiet hours, or until its group picks at ``due_ms``."""
        for action in self._actions(contender):
            self._hold(contender, action, until_ms, due_ms, is_counted)

    def _actions(self, contender: Contender) -> Iterator[FiredAction]:
        """The actions of a rule; those whose bodies are too large are refused."""
        rule, trigger, scope = contender.rule, contender.trigger, self._scope
        refused: list[BodyTooLarge] = []
        expires_ms = 0 if rule.expires is None else scope.now_ms + rule.expires.ms
        for action in trigger.actions(rule, scope.rule_set, contender.at_ms, contender.begun, expires_ms):
            if isinstance(action, BodyTooLarge):
                refused.append(action)
            else:
                yield action
        if refused:
            self._refuse(rule, trigger, refused)

    def _refuse(self, rule: Rule, trigger: Trigger, refused: Sequence[BodyTooLarge]) -> None:
        """Reject actions because of the size of bodies: one dead letter for each reason, as there may be thousands."""
        for action in refused:
            self._scope.log.event(decisions.REFUSED, rule, trigger.fields, str(action), action.fired)
        for reason in dict.fromkeys(action.reason for action in refused):
            first, *others = (action for action in refused if action.reason == reason)
            detail = f"{first} (and {len(others)} more actions of the rule)" if others else str(first)
            self._scope.result.reject(trigger.topic, trigger.record, reason, detail, rule.name)

    def is_stopped(self, contender: Contender) -> bool:
        """Whether the rule's own cooldown or cap stops it."""
        scope, rule, trigger = self._scope, contender.rule, contender.trigger
        if rule.cooldown is None and rule.cap is None:
            return False
        stopped = stopped_by(
            scope.state.rule_states.of(trigger.user_id),
            rule,
            lambda: rule_state.zone_for(rule.time_zone, trigger.profile),
            contender.key,
            contender.at_ms,
            contender.received_ms,
            scope.log.is_on,
        )
        if stopped is None:
            return False
        decision, detail = stopped
        scope.count(rule, decision, f"rules_{decision}")
        if scope.log.is_on:
            scope.log.event(decision, rule, trigger.fields, detail)
        return True

    def is_suppressed(self, contender: Contender) -> bool:
        """Whether a control record suppresses the rule's actions for the user."""
        scope, rule, trigger = self._scope, contender.rule, contender.trigger
        state = scope.state.rule_states.get(trigger.user_id)
        if state is None or not state.suppressed:
            return False
        detail = suppression(state, rule.group, scope.now_ms)
        if detail is None:
            return False
        scope.count(rule, "suppressed", "rules_suppressed")
        scope.log.event(decisions.SUPPRESSED, rule, trigger.fields, detail, more={"group": rule.group})
        return True

    def remember(self, contender: Contender) -> None:
        """Have the rule's cooldown and cap count a firing."""
        rule, trigger = contender.rule, contender.trigger
        if rule.cooldown is not None or rule.cap is not None:
            self.remember_firing(
                trigger.user_id,
                rule,
                lambda: rule_state.zone_for(rule.time_zone, trigger.profile),
                contender.key,
                contender.at_ms,
                contender.received_ms,
            )

    def remember_firing(
        self, user_id: str, rule: Rule, zone: frequency.Zone, key: str | None, at_ms: int, received_ms: int
    ) -> None:
        """Have a rule's cooldown and cap count a firing of a user."""
        scope = self._scope
        latest_ms, lateness_ms = max(at_ms, received_ms), scope.settings.allowed_lateness_ms
        for slot, keep, until_ms in frequency.firings_of(rule, zone, key, latest_ms, lateness_ms):
            self._make_room(user_id, rule, slot, scope.state.rule_states.of(user_id))
            scope.record(RuleFired(user_id, rule.name, slot, at_ms, keep, until_ms, received_ms - at_ms))

    def _make_room(self, user_id: str, rule: Rule, slot: str, state: RuleState) -> None:
        """Forget the cooldown that ends first when a new slot would be one too many."""
        if slot == rule_state.CAP or len(state.fired) < MAX_COOLDOWN_KEYS or (rule.name, slot) in state.fired:
            return
        cooldowns = [kept for kept in state.fired.values() if kept.slot not in (rule_state.CAP, rule_state.GROUP)]
        if len(cooldowns) >= MAX_COOLDOWN_KEYS:
            first = min(cooldowns, key=lambda kept: (kept.until_ms, kept.rule, kept.slot))
            self._scope.record(FiringsForgotten(user_id, first.rule, first.slot))
            self._scope.result.counts["cooldowns_cut"] += 1

    def _hold(self, contender: Contender, action: FiredAction, until_ms: int, due_ms: int, is_counted: bool) -> None:
        scope, log, rule, trigger = self._scope, self._scope.log, contender.rule, contender.trigger
        group_zone = None if rule.shared is None else rule_state.zone_for(rule.shared.time_zone, trigger.profile)
        held = HeldAction(
            rule.name,
            rule.version,
            encode_action(action.action),
            action.action_id,
            trigger.event_id,
            until_ms,
            rule_state.zone_for(rule.time_zone, trigger.profile).key,
            action.body,
            action.rule_set,
            action.at_ms,
            contender.received_ms,
            due_ms,
            contender.key,
            is_counted,
            action.group,
            "" if group_zone is None else group_zone.key,
            scope.now_ms,
            action.expires_ms,
            b"" if rule.recheck is None else exact_json.dumps(trigger.fields),
        )
        decision = decisions.PENDING if due_ms else decisions.HELD
        more = NO_MORE if rule.group is None else {"group": rule.group}
        waiting = scope.state.rule_states.of(trigger.user_id).held
        if any(other.action_id == held.action_id for other in waiting):
            # The same event again, after the history has lost it: the first decision stands.
            log.event(decision, rule, trigger.fields, "already", action, more)
            return
        if len(waiting) >= MAX_HELD or sum(other.nbytes for other in waiting) + held.nbytes > MAX_BYTES:
            scope.result.counts["actions_refused"] += 1
            detail = f"{len(waiting)} actions of this user are held, allowed are {MAX_HELD} and {MAX_BYTES} bytes"
            scope.result.reject(trigger.topic, trigger.record, reasons.RULE_STATE_FULL, detail, rule.name)
            log.event(decisions.REFUSED, rule, trigger.fields, detail, action)
            return
        scope.record(ActionHeld(trigger.user_id, held))
        if due_ms:
            scope.count(rule, "pending", "actions_pending")
        else:
            scope.count(rule, "held", "actions_held")
        if log.is_on:
            log.event(decision, rule, trigger.fields, waits_until(held), action, more)


def waits_until(held: HeldAction) -> str:
    """Until when an action waits, for a decision's detail."""
    return f"group {held.group} picks at {rfc_3339(held.due_ms)}" if held.due_ms else f"until {rfc_3339(held.until_ms)}"


def stopped_by(
    state: RuleState,
    rule: Rule,
    zone: frequency.Zone,
    key: str | None,
    at_ms: int,
    received_ms: int,
    is_logged: bool,
) -> tuple[str, str] | None:
    """Decision, and if it is logged its detail, if a rule's own cooldown or cap stops a firing."""
    by = frequency.cools_down(state, rule, key, at_ms, received_ms)
    if by is not None:
        if not is_logged:
            return decisions.COOLED_DOWN, ""
        until = f"until {rfc_3339(frequency.cooled_until_ms(state, rule, key, by))}"
        return decisions.COOLED_DOWN, stopped(until if key is None else f"key {frequency.short(key)}, {until}", by)
    by = frequency.caps(state, rule, zone, at_ms, received_ms)
    if by is not None and rule.cap is not None:
        return decisions.CAPPED, stopped(f"{rule.cap.count} {span_of(rule.cap)}", by)
    return None


def quiet_hours_end_ms(quiet: QuietHours, now_ms: int, zone: ZoneInfo) -> int | None:
    """When the quiet hours end that it is in; None: it is not quiet."""
    return quiet_until_ms(now_ms, quiet.start, quiet.end, zone, quiet.weekdays)


def span_of(cap: Cap) -> str:
    """A cap's time in words."""
    return f"in {cap.window}" if cap.window is not None else f"per {cap.per}"


def stopped(detail: str, stopped_by: str) -> str:
    """The detail of a decision, which names the record time where the event time alone would not have stopped it."""
    return f"{detail}, by record time" if stopped_by == frequency.RECORD_TIME else detail
