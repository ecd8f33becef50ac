"""Groups within one step: which of the rules that would fire speaks (docs/rules.md, "Groups")."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from zoneinfo import ZoneInfo

from transforms.domain.base.calendar import rfc_3339, zone_of
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import action_id
from transforms.domain.rules.frequency import Zone
from transforms.domain.rules.model import DROP, Group, Rule
from transforms.domain.rules.state import HeldAction, has_bad_zone, zone_for
from transforms.domain.shard import decisions
from transforms.domain.shard.firing import DROPPED, Contender, Firing, stopped_by
from transforms.domain.shard.group_cap import Winner, count_loss, lost, remember
from transforms.domain.shard.held_actions import HeldActions, pick_due_ms
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.shard.webhook_dispatch import NO_COORDINATE


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The actions of one rule for one event that wait until their group picks."""

    rule: Rule
    held: list[HeldAction]

    @property
    def first(self) -> HeldAction:
        return self.held[0]


class GroupPicks:
    """Decides what rules of groups do: at once, or for groups with ``within`` when its time is over."""

    __slots__ = ("_firing", "_held", "_scope")

    def __init__(self, scope: StepScope, firing: Firing, held: HeldActions) -> None:
        self._scope = scope
        self._firing = firing
        self._held = held

    # At once

    def decide(self) -> None:
        """Decide about the rules of groups that would fire: of one event's rules that of the highest priority first."""
        contenders, self._firing.contenders = self._firing.contenders, []
        for _, of_event in groupby(contenders, lambda contender: (contender.trigger.event_id, contender.at_ms)):
            winners: dict[str, Winner] = {}
            for contender in sorted(of_event, key=lambda contender: _rank(contender.rule)):
                name, group = contender.rule.group, contender.rule.shared
                if name is not None and group is not None:
                    self._decide(contender, name, group, winners)

    def _decide(self, contender: Contender, name: str, group: Group, winners: dict[str, Winner]) -> None:
        scope, firing, rule, trigger = self._scope, self._firing, contender.rule, contender.trigger
        if firing.is_stopped(contender) or firing.is_suppressed(contender) or self._is_left_out(contender, name):
            return
        until_ms = firing.quiet_until_ms(contender)
        if until_ms == DROPPED:
            return
        if group.cap is not None and group.cap.per is not None and has_bad_zone(group.time_zone, trigger.profile):
            scope.result.counts["time_zones_unknown"] += 1
        if until_ms is not None:
            firing.remember(contender)
            firing.hold(contender, until_ms=until_ms)
            return
        if group.within is not None:
            due_ms = pick_due_ms(scope, trigger.user_id, rule, contender.received_ms)
            firing.hold(contender, due_ms=due_ms, is_counted=False)
            return
        times, zone = (contender.at_ms, contender.received_ms), partial(zone_for, group.time_zone, trigger.profile)
        loss = lost(scope, trigger.user_id, name, group, zone, times, winners.get(name))
        if loss is not None:
            decision, detail, more = loss
            count_loss(scope, rule, decision)
            scope.log.event(decision, rule, trigger.fields, detail, more=more)
            return
        scope.count(rule, "fired")
        firing.remember(contender)
        remember(scope, trigger.user_id, name, group, zone, times)
        if name not in winners:
            identity = (trigger.user_id, trigger.event_id, rule.name, rule.version, rule.actions[0].name)
            winners[name] = Winner(rule.name, action_id(*identity))
        firing.send(contender)

    def _is_left_out(self, contender: Contender, group: str) -> bool:
        """Whether the group's ``unless`` holds, or fails, which is an error of the rule."""
        scope, rule, trigger = self._scope, contender.rule, contender.trigger
        is_left_out, error = scope.filters.leaves_out(group, trigger.user)
        detail = f"unless of group {group}{'' if error is None else f': {error}'}"
        if error is not None:
            self._count_error(rule, trigger.topic, trigger.record, detail)
            scope.log.event(decisions.ERROR, rule, trigger.fields, detail, more={"group": group})
        elif is_left_out:
            scope.count(rule, "suppressed", "rules_suppressed")
            scope.log.event(decisions.SUPPRESSED, rule, trigger.fields, detail, more={"group": group})
        return is_left_out or error is not None

    def _count_error(self, rule: Rule, topic: str, record: Record, message: str) -> None:
        self._scope.count(rule, "error", "rule_errors")
        self._scope.result.reject(topic, record, reasons.RULE_ERROR, message, rule.name)

    # When the time is over

    def next_due_ms(self, user_id: str, stream_ms: int) -> int | None:
        """When a group of the user picks, the first time up to ``stream_ms``."""
        due_ms = (held.due_ms for held in self._scope.state.rule_states.of(user_id).held)
        return min((at_ms for at_ms in due_ms if 0 < at_ms <= stream_ms), default=None)

    def needs_profile(self, user_id: str, stream_ms: int) -> bool:
        """Whether a group that picks by ``stream_ms`` asks for the user's profile."""
        filters = self._scope.filters
        rules = (
            filters.by_name.get(held.rule)
            for held in self._scope.state.rule_states.of(user_id).held
            if 0 < held.due_ms <= stream_ms
        )
        return any(rule is not None and filters.asks_profile(rule.group) for rule in rules)

    def pick(self, user_id: str, due_ms: int) -> None:
        """Have each group of the user pick whose time is over at ``due_ms``."""
        by_name = self._scope.filters.by_name
        pending = [held for held in self._scope.state.rule_states.of(user_id).held if held.due_ms]
        due_groups: set[str] = set()
        for held in pending:
            rule = by_name.get(held.rule)
            if held.due_ms != due_ms:
                continue
            if rule is None:
                self._held.drop(user_id, held)
            else:
                due_groups.add(_group_of(rule))
        for name in sorted(due_groups):
            taking_part = [
                (rule, held)
                for held in pending
                if (rule := by_name.get(held.rule)) is not None
                and _group_of(rule) == name
                and (held.due_ms == due_ms or (name and held.received_ms < due_ms))
            ]
            winner: Winner | None = None
            for waiting in sorted(_by_firing(taking_part), key=lambda waiting: _rank(waiting.rule)):
                is_picked = self._speaks(user_id, waiting, due_ms, winner)
                if is_picked and winner is None:
                    winner = Winner(waiting.rule.name, waiting.first.action_id)

    def _speaks(self, user_id: str, waiting: _Waiting, due_ms: int, winner: Winner | None) -> bool:
        """Send the actions of a rule unless something stops them; ``winner`` is what the group has picked."""
        scope, rule, first = self._scope, waiting.rule, waiting.first
        name, group = rule.group, rule.shared
        waiting = _Waiting(rule, [held for held in waiting.held if not self._held.is_lost(user_id, held, rule)])
        if not waiting.held or self._is_left_out_now(user_id, waiting) or self._is_quiet(user_id, waiting):
            return False
        own_zone = _zone(first.zone, rule.time_zone.default)
        if not first.is_counted:
            own = stopped_by(
                scope.state.rule_states.of(user_id),
                rule,
                own_zone,
                first.key,
                first.at_ms,
                first.received_ms,
                scope.log.is_on,
            )
            if own is not None:
                scope.count(rule, own[0], f"rules_{own[0]}")
                self._lose(user_id, waiting, *own, {})
                return False
        if name is not None and group is not None:
            is_calendar = group.cap is not None and group.cap.per is not None
            times = (due_ms if is_calendar or not first.at_ms else first.at_ms, due_ms)
            zone = _zone(first.group_zone, group.time_zone.default)
            loss = lost(scope, user_id, name, group, zone, times, winner)
            if loss is not None:
                count_loss(scope, rule, loss[0])
                self._lose(user_id, waiting, *loss)
                return False
            remember(scope, user_id, name, group, zone, times)
        scope.count(rule, "fired")
        if not first.is_counted:
            self._firing.remember_firing(user_id, rule, own_zone, first.key, first.at_ms, first.received_ms)
        for held in waiting.held:
            self._held.send(user_id, held, rule)
        return True

    def _is_left_out_now(self, user_id: str, waiting: _Waiting) -> bool:
        scope, group = self._scope, waiting.rule.group
        if group is None or not scope.filters.asks_profile(group):
            return False
        user = scope.state.users.get(user_id)
        is_left_out, error = (False, "no profile") if user is None else scope.filters.leaves_out(group, user)
        detail = f"unless of group {group}{'' if error is None else f': {error}'}"
        if error is not None:
            record = Record(NO_COORDINATE, NO_COORDINATE, scope.now_ms, user_id.encode(), b"")
            self._count_error(waiting.rule, "", record, detail)
        elif is_left_out:
            scope.count(waiting.rule, "suppressed", "rules_suppressed")
        if is_left_out or error is not None:
            decision = decisions.SUPPRESSED if error is None else decisions.ERROR
            self._lose(user_id, waiting, decision, detail, {"group": group})
        return is_left_out or error is not None

    def _is_quiet(self, user_id: str, waiting: _Waiting) -> bool:
        """Whether quiet hours have begun meanwhile, which hold the actions or drop them."""
        rule, first = waiting.rule, waiting.first
        until_ms = self._held.quiet_until_ms(first, rule)
        if until_ms is None or rule.quiet_hours is None:
            return False
        if rule.quiet_hours.mode == DROP:
            self._scope.count(rule, "dropped", "rules_dropped")
            self._lose(user_id, waiting, decisions.DROPPED, f"quiet hours until {rfc_3339(until_ms)}", {})
            return True
        for held in waiting.held:
            self._held.hold(user_id, held, until_ms)
            if not held.until_ms:
                self._scope.count(rule, "held", "actions_held")
        return True

    def _lose(self, user_id: str, waiting: _Waiting, decision: str, detail: str, more: dict[str, str]) -> None:
        for held in waiting.held:
            self._held.lose(user_id, held, decision, detail, more)


def _rank(rule: Rule) -> tuple[int, str]:
    return -rule.priority, rule.name


def _group_of(rule: Rule) -> str:
    return "" if rule.group is None or rule.shared is None else rule.group


def _by_firing(taking_part: Iterable[tuple[Rule, HeldAction]]) -> list[_Waiting]:
    """The actions by rule, version and event, in the order in which they came."""
    firings: dict[tuple[str, int, str], _Waiting] = {}
    for rule, held in taking_part:
        firings.setdefault((held.rule, held.version, held.event_id), _Waiting(rule, [])).held.append(held)
    return list(firings.values())


def _zone(name: str, default: str) -> Zone:
    """The time zone that was stored with an action."""
    zone = zone_of(name) or zone_of(default) or ZoneInfo("UTC")
    return lambda: zone
