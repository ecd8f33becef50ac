"""Firing a rule: cooldown, cap, quiet hours, and the actions that leave (docs/rules.md, "How often, when, …")."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from transforms.domain.base import exact_json
from transforms.domain.base.calendar import quiet_until_ms, rfc_3339, zone_of
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.record import MAX_PRODUCED_BYTES, Record
from transforms.domain.rules import state as rule_state
from transforms.domain.rules import templates
from transforms.domain.rules.actions import FiredAction, action_id, decode_action, encode_action, enriched_event
from transforms.domain.rules.begun_conditions import Met
from transforms.domain.rules.model import DROP, Action, Cap, DebugAction, KafkaAction, QuietHours, Rule, WebhookAction
from transforms.domain.rules.state import MAX_BYTES, MAX_COOLDOWN_KEYS, MAX_HELD, HeldAction, RuleState
from transforms.domain.shard import decisions, recheck
from transforms.domain.shard.facts import ActionHeld, ActionReleased, FiringsForgotten, RuleFired
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.shard.webhook_dispatch import NO_COORDINATE, WebhookDispatch
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit

# All bodies for one event. Each is bounded, but a set may have any number of actions.
MAX_BODIES_BYTES: Final = 8_000_000
_ACTION_BYTES: Final = 200  # what an action has besides its body


@dataclass(frozen=True, slots=True)
class BodyTooLarge:
    """An action that is not taken, because of the size of its body or of all bodies for its event."""

    fired: FiredAction
    size: str
    allowed: int

    def __str__(self) -> str:
        return f"action {self.fired.action.name!r}: {self.size}, allowed are {self.allowed}"

    @property
    def reason(self) -> str:
        """The reason of its dead letter."""
        is_kafka = isinstance(self.fired.action, KafkaAction) and self.allowed == MAX_PRODUCED_BYTES
        return reasons.KAFKA_ACTION_TOO_LARGE if is_kafka else reasons.BODY_TOO_LARGE


@dataclass
class Trigger:
    """An event that fires rules, with its user as the rules saw it; ``topic`` and ``record`` are for dead letters.

    ``met`` are the open sequences whose conditions it meets, of conditions that read ``begun``.
    """

    user_id: str
    event_id: str
    fields: dict[str, Any]
    user: UserState
    visit: Visit | None
    topic: str
    record: Record
    met: frozenset[Met] = frozenset()
    _nbytes: int = 0  # of the bodies so far

    @functools.cached_property
    def profile(self) -> dict[str, Any]:
        """The user's profile."""
        return self.user.profile()

    @functools.cached_property
    def _enriched(self) -> bytes:
        return enriched_event(self.fields, self.visit, self.user)

    @functools.cached_property
    def _without_history(self) -> bytes:
        return enriched_event(self.fields, self.visit, self.user, history=False)

    @functools.cached_property
    def _values(self) -> templates.Values:
        return templates.Values(
            {
                "event": self.fields,
                "user": self.profile,
                "visit": {} if self.visit is None else self.visit.public(),
                "history": [row.public() for row in self.user.history.rows()],
                "enrichment": self.user.enrichment,
            }
        )

    def actions(
        self, rule: Rule, rule_set: int, at_ms: int, begun: dict[str, Any] | None = None
    ) -> Iterator[FiredAction | BodyTooLarge]:
        """The actions of a rule that fires at ``at_ms``; ``rule_set`` is the number of its set."""
        for action in rule.actions:
            identity = action_id(self.user_id, self.event_id, rule.name, rule.version, action.name)
            body, size, allowed = b"", "", MAX_PRODUCED_BYTES
            if self._nbytes > MAX_BODIES_BYTES:
                size, allowed = f"{self._nbytes} bytes in all bodies for the event", MAX_BODIES_BYTES
            else:
                try:
                    body = self._body(rule, action, identity, begun)
                except templates.BodyTooLargeError as error:
                    # What was built until then counts, too: it took its time.
                    self._nbytes += min(error.nbytes, MAX_PRODUCED_BYTES)
                    size = error.size
            if len(body) > MAX_PRODUCED_BYTES:
                body, size = b"", f"{len(body)} bytes"
            fired = FiredAction(identity, self.user_id, rule.name, rule.version, action, body, rule_set, at_ms)
            if size:
                yield BodyTooLarge(fired, size, allowed)
                continue
            self._nbytes += len(body) + _ACTION_BYTES
            yield fired

    def _body(self, rule: Rule, action: Action, identity: str, begun: dict[str, Any] | None) -> bytes:
        """What an action sends: its template, filled in, or the enriched event.

        Raises:
            BodyTooLargeError: the template becomes too large.
        """
        if not isinstance(action, DebugAction) and action.body is not None:
            shown = {"id": identity, "name": action.name, "rule": rule.name, "version": rule.version}
            return templates.render(action.body, self._values.with_action(shown, begun), MAX_PRODUCED_BYTES)
        if isinstance(action, WebhookAction) and not action.history:
            return self._without_history
        return self._enriched


class Firing:
    """Fires rules within one step, and releases the actions that quiet hours held."""

    __slots__ = ("_dispatch", "_scope")

    def __init__(self, scope: StepScope, dispatch: WebhookDispatch) -> None:
        self._scope = scope
        self._dispatch = dispatch

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
        scope, log = self._scope, self._scope.log
        if self._is_stopped(rule, trigger, at_ms, received_ms, key):
            return
        if (rule.quiet_hours or (rule.cap and rule.cap.per)) and rule_state.has_bad_zone(
            rule.time_zone, trigger.profile
        ):
            scope.result.counts["time_zones_unknown"] += 1
        until_ms = None
        if rule.quiet_hours is not None:
            until_ms = _quiet_until_ms(
                rule.quiet_hours, scope.now_ms, rule_state.zone_for(rule.time_zone, trigger.profile)
            )
            if until_ms is not None and rule.quiet_hours.mode == DROP:
                scope.count(rule, "dropped", "rules_dropped")
                if log.is_on:
                    log.event(decisions.DROPPED, rule, trigger.fields, f"quiet hours until {rfc_3339(until_ms)}")
                return
        scope.count(rule, "fired")
        if rule.cooldown is not None or rule.cap is not None:
            self._remember(rule, trigger, at_ms, received_ms, key)
        refused: list[BodyTooLarge] = []
        for action in trigger.actions(rule, scope.rule_set, at_ms, begun):
            if isinstance(action, BodyTooLarge):
                refused.append(action)
            elif until_ms is None:
                log.event(decisions.FIRED, rule, trigger.fields, None, action)
                self._dispatch.send(action, trigger.event_id, trigger.topic, trigger.record)
            else:
                self._hold(rule, trigger, action, until_ms)
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

    def _is_stopped(self, rule: Rule, trigger: Trigger, at_ms: int, received_ms: int, key: str | None) -> bool:
        scope, log = self._scope, self._scope.log
        state = scope.state.rule_states.of(trigger.user_id)
        stopped_by = rule_state.cools_down(state, rule, key, at_ms, received_ms)
        if stopped_by is not None:
            scope.count(rule, "cooled_down", "rules_cooled_down")
            if log.is_on:
                until = f"until {rfc_3339(rule_state.cooled_until_ms(state, rule, key, stopped_by))}"
                detail = until if key is None else f"key {rule_state.short(key)}, {until}"
                log.event(decisions.COOLED_DOWN, rule, trigger.fields, _stopped(detail, stopped_by))
            return True
        if rule.cap is None:
            return False
        stopped_by = rule_state.caps(state, rule, trigger.profile, at_ms, received_ms)
        if stopped_by is None:
            return False
        scope.count(rule, "capped", "rules_capped")
        if log.is_on:
            detail = f"{rule.cap.count} {_span_of(rule.cap)}"
            log.event(decisions.CAPPED, rule, trigger.fields, _stopped(detail, stopped_by))
        return True

    def _remember(self, rule: Rule, trigger: Trigger, at_ms: int, received_ms: int, key: str | None) -> None:
        scope, user_id = self._scope, trigger.user_id
        latest_ms, lateness_ms = max(at_ms, received_ms), scope.settings.allowed_lateness_ms
        for slot, keep, until_ms in rule_state.firings_of(rule, trigger.profile, key, latest_ms, lateness_ms):
            self._make_room(user_id, rule, slot, scope.state.rule_states.of(user_id))
            scope.record(RuleFired(user_id, rule.name, slot, at_ms, keep, until_ms, received_ms - at_ms))

    def _make_room(self, user_id: str, rule: Rule, slot: str, state: RuleState) -> None:
        """Forget the cooldown that ends first when a new slot would be one too many."""
        if slot == rule_state.CAP or len(state.fired) < MAX_COOLDOWN_KEYS or (rule.name, slot) in state.fired:
            return
        cooldowns = [kept for kept in state.fired.values() if kept.slot != rule_state.CAP]
        if len(cooldowns) >= MAX_COOLDOWN_KEYS:
            first = min(cooldowns, key=lambda kept: (kept.until_ms, kept.rule, kept.slot))
            self._scope.record(FiringsForgotten(user_id, first.rule, first.slot))
            self._scope.result.counts["cooldowns_cut"] += 1

    def _hold(self, rule: Rule, trigger: Trigger, action: FiredAction, until_ms: int) -> None:
        scope, log = self._scope, self._scope.log
        zone = rule_state.zone_for(rule.time_zone, trigger.profile).key
        held = HeldAction(
            rule.name,
            rule.version,
            encode_action(action.action),
            action.action_id,
            trigger.event_id,
            until_ms,
            zone,
            action.body,
            action.rule_set,
            action.at_ms,
            b"" if rule.recheck is None else exact_json.dumps(trigger.fields),
        )
        waiting = scope.state.rule_states.of(trigger.user_id).held
        if any(other.action_id == held.action_id for other in waiting):
            # The same event again, after the history has lost it: the first decision stands.
            log.event(decisions.HELD, rule, trigger.fields, "already", action)
            return
        if len(waiting) >= MAX_HELD or sum(other.nbytes for other in waiting) + held.nbytes > MAX_BYTES:
            scope.result.counts["actions_refused"] += 1
            detail = f"{len(waiting)} actions of this user are held, allowed are {MAX_HELD} and {MAX_BYTES} bytes"
            scope.result.reject(trigger.topic, trigger.record, reasons.RULE_STATE_FULL, detail, rule.name)
            log.event(decisions.REFUSED, rule, trigger.fields, detail, action)
            return
        scope.record(ActionHeld(trigger.user_id, held))
        scope.count(rule, "held", "actions_held")
        if log.is_on:
            log.event(decisions.HELD, rule, trigger.fields, f"until {rfc_3339(until_ms)}", action)

    def release_held_actions(self, user_id: str) -> None:
        """Send the user's actions that quiet hours held until now, if the rule's ``recheck`` allows them.

        If it is quiet again, they are held for longer.
        """
        scope = self._scope
        for held in [held for held in scope.state.rule_states.of(user_id).held if held.until_ms <= scope.now_ms]:
            rule, zone, until_ms = scope.filters.by_name.get(held.rule), zone_of(held.zone), None
            if rule is not None and rule.quiet_hours is not None and zone is not None:
                until_ms = _quiet_until_ms(rule.quiet_hours, scope.now_ms, zone)
            if until_ms is not None:
                scope.record(ActionHeld(user_id, msgspec.structs.replace(held, until_ms=until_ms, waits=False)))
                scope.log.held(decisions.HELD, user_id, held, f"until {rfc_3339(until_ms)}")
                continue
            allowed = True if rule is None else recheck.allows(scope, rule, held, user_id)
            if allowed is None:
                continue
            scope.record(ActionReleased(user_id, held.action_id))
            if rule is None:
                scope.result.counts["held_dropped"] += 1
                scope.log.held(decisions.DROPPED, user_id, held, "no rule of this name is live")
                continue
            if not allowed:
                continue
            scope.log.held(decisions.RELEASED, user_id, held)
            action = decode_action(held.action)
            fired = FiredAction(
                held.action_id, user_id, held.rule, held.version, action, held.body, held.rule_set, held.at_ms
            )
            record = Record(NO_COORDINATE, NO_COORDINATE, scope.now_ms, user_id.encode(), b"")
            self._dispatch.send(fired, held.event_id, "", record)
            scope.count(rule, "released", "held_released")


def _quiet_until_ms(quiet: QuietHours, now_ms: int, zone: ZoneInfo) -> int | None:
    return quiet_until_ms(now_ms, quiet.start, quiet.end, zone, quiet.weekdays)


def _span_of(cap: Cap) -> str:
    return f"in {cap.window}" if cap.window is not None else f"per {cap.per}"


def _stopped(detail: str, stopped_by: str) -> str | None:
    """The detail of a decision, which names the record time where the event time alone would not have stopped it."""
    parts = (detail, "by record time" if stopped_by == rule_state.RECORD_TIME else "")
    return ", ".join(filter(None, parts)) or None
