"""What rules come to: who fires, what is remembered of it, what is held (docs/rules.md, "How often, when, …")."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from transforms.domain.base.calendar import quiet_until_ms, rfc_3339, zone_of
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.event import Event
from transforms.domain.events.record import MAX_PRODUCED_BYTES, Record
from transforms.domain.rules.actions import (
    FiredAction,
    body_by_template,
    decode_action,
    encode_action,
    enriched_event,
    fire,
)
from transforms.domain.rules.filters import FilterResult
from transforms.domain.rules.live_sets import LiveSet
from transforms.domain.rules.model import RUN, Action, Cap, DebugAction, KafkaAction, Rule, WebhookAction
from transforms.domain.rules.state import (
    CAP,
    MAX_BYTES,
    MAX_COOLDOWN_KEYS,
    MAX_HELD,
    MAX_OPEN,
    HeldAction,
    OpenSequence,
    cools_down,
    firings_of,
    followed_by,
    has_bad_zone,
    is_capped,
    make_opening,
    match_of,
    over,
    short,
    zone_for,
)
from transforms.domain.shard import decisions
from transforms.domain.shard.decision_log import DecisionLog
from transforms.domain.shard.shard_state import BEGUN, ENDED, FIRED, HELD, RELEASED, UNFIRED, ShardState
from transforms.domain.shard.step_result import ShardSettings, StepResult
from transforms.domain.shard.webhook_dispatch import NO_COORDINATE, WebhookDispatch
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit


@dataclass
class _Moment:
    """An event that rules fire for, as its user is at that time; ``topic`` and ``record`` are for dead letters."""

    user_id: str
    event_id: str
    fields: dict[str, Any]
    user: UserState
    visit: Visit | None
    topic: str
    record: Record

    @functools.cached_property
    def profile(self) -> dict[str, Any]:
        return self.user.profile()

    @functools.cached_property
    def enriched(self) -> bytes:
        return enriched_event(self.fields, self.visit, self.user)

    @functools.cached_property
    def without_history(self) -> bytes:
        return enriched_event(self.fields, self.visit, self.user, history=False)

    def body(self, rule: Rule, action: Action, action_id: str) -> bytes:
        """What an action of a rule sends."""
        if not isinstance(action, DebugAction) and action.body is not None:
            fired = {"id": action_id, "name": action.name, "rule": rule.name, "version": rule.version}
            return body_by_template(action.body, fired, self.fields, self.profile, self.visit, self.user)
        if isinstance(action, WebhookAction) and not action.history:
            return self.without_history
        return self.enriched


class RuleEngine:
    """The rules' part of one step of a shard: asks them, and changes what they remember."""

    def __init__(
        self,
        view: ShardState,
        now_ms: int,
        settings: ShardSettings,
        live: LiveSet,
        step: StepResult,
        delivering: WebhookDispatch,
        log: DecisionLog,
    ) -> None:
        self._view = view
        self._delivering = delivering
        self._now_ms = now_ms
        self._settings = settings
        self._step = step
        self._log = log
        self._is_sampling = log.is_sampling
        self.use(live)

    def use(self, live: LiveSet) -> None:
        """Ask this rule set from now on."""
        self._filters, self._rule_set = live.filters, live.number
        self._log.rule_set = live.number

    def _record(self, *fact: object) -> None:
        self._view.apply(self._now_ms, fact)
        self._step.facts.append(fact)

    def _count(self, rule: Rule, what: str, name: str | None = None, number: int = 1) -> None:
        self._step.rule_counts[rule.name, what] += number
        if name is not None:
            self._step.counts[name] += number

    def _tell_others(self, event: Event, user: UserState, verdict: FilterResult, since: int) -> None:
        """Tell the log of a sample of the rules that came to nothing."""
        for rule in self._log.sampled(event.user_id, event.event_id, self._filters.rules, since):
            if rule in verdict.quarantined:
                self._log.event(decisions.SET_ASIDE, rule, event.fields)
            elif self._passes_over(rule, user):
                self._log.event(decisions.SKIPPED, rule, event.fields, f"profile is {user.enrichment}")
            else:
                self._log.event(decisions.NOT_ALLOWED, rule, event.fields)

    # An event

    def event(self, topic: str, record: Record, event: Event, user: UserState, visit: Visit) -> None:
        """Ask all rules about an event, at the state of its user before it; ``visit`` has it counted."""
        filters, step = self._filters, self._step
        told = self._log.count if self._is_sampling else 0
        verdict = filters.evaluate(event, visit, user)
        step.evaluated_events += 1
        if verdict.tripped or verdict.quarantined:
            step.counts["rules_tripped"] += len(verdict.tripped)
            step.counts["rules_quarantined"] += len(verdict.quarantined)
            step.rule_counts.update((rule.name, "tripped") for rule in verdict.tripped)
            step.rule_counts.update((rule.name, "quarantined") for rule in verdict.quarantined)
        if not user.has_profile and not filters.waits:
            step.counts["rules_skipped"] += filters.skipping
        if verdict.allowed or verdict.followed:
            moment = _Moment(event.user_id, event.event_id, event.fields, user, visit, topic, record)
            allowed = {rule.name for rule in verdict.allowed}
            followed = {rule.name for rule in verdict.followed}
            for rule in filters.rules if followed else verdict.allowed:
                if rule.name in allowed or rule.name in followed:
                    self._meet(rule, moment, event, rule.name in allowed, rule.name in followed, verdict.keys)
        for rule, message in verdict.errors:
            if not self._passes_over(rule, user):
                self._count(rule, "error", "rule_errors")
                step.reject(topic, record, reasons.RULE_ERROR, message, rule.name)
                self._log.event(decisions.ERROR, rule, event.fields, message)
        if self._is_sampling:
            self._tell_others(event, user, verdict, told)

    def _passes_over(self, rule: Rule, user: UserState) -> bool:
        return not user.has_profile and not self._filters.waits and rule.on_missing_profile != RUN

    def _meet(
        self, rule: Rule, moment: _Moment, event: Event, is_allowed: bool, is_followed: bool, keys: dict[str, str]
    ) -> None:
        """One rule whose Lua allowed an event: its filter, its sequence's, or both."""
        is_passed_over = self._passes_over(rule, moment.user)
        if is_allowed and not is_passed_over:
            self._count(rule, "allowed", "rule_matches")
        elif is_allowed and self._log.is_on:
            self._log.event(decisions.SKIPPED, rule, event.fields, f"profile is {moment.user.enrichment}")
        if rule.sequence is None:
            if not is_passed_over:
                self._fire(rule, moment, event.timestamp_ms, keys.get(rule.name))
            return
        match = match_of(rule.sequence.match, event)
        if match is None:
            if self._log.is_on and not is_passed_over:
                self._log.event(decisions.NO_MATCH, rule, event.fields, f"the event has no {rule.sequence.match}")
            return
        if is_followed and not (is_passed_over and rule.sequence.not_followed_by is None):
            self._follow(rule, moment, event, match)
        if is_allowed and not is_passed_over:
            self._begin(rule, moment, event, match, keys.get(rule.name))

    # Sequences

    def _follow(self, rule: Rule, moment: _Moment, event: Event, match: str) -> None:
        followed = followed_by(self._view.rule_state(event.user_id), rule, match, event.timestamp_ms)
        for opening in followed:
            self._record(ENDED, event.user_id, rule.name, opening.event_id, match)
            self._log.event(decisions.FOLLOWED, rule, event.fields, f"sequence that event {opening.event_id} began")
        if followed:
            self._count(rule, "followed", "sequences_followed", len(followed))
            if rule.sequence is not None and rule.sequence.followed_by is not None:
                self._fire(rule, moment, event.timestamp_ms, followed[-1].key)

    def _begin(self, rule: Rule, moment: _Moment, event: Event, match: str, key: str | None) -> None:
        """Begin a sequence, anew if one is open; nothing if that one began later."""
        user_id, at_ms = event.user_id, event.timestamp_ms
        state = self._view.rule_state(user_id)
        anew = max(followed_by(state, rule, match, at_ms), key=lambda one: one.begun_ms, default=None)
        if anew is not None:
            self._record(ENDED, user_id, rule.name, anew.event_id, match)
        elif any(one.begun_ms > at_ms for one in state.open if one.rule == rule.name and one.match == match):
            self._log.event(decisions.NOT_BEGUN, rule, event.fields, "a sequence that began later is open")
            return
        opening = make_opening(rule, match, event, key, self._settings.allowed_lateness_ms)
        state = self._view.rule_state(user_id)
        if len(state.open) >= MAX_OPEN or sum(one.nbytes for one in state.open) + opening.nbytes > MAX_BYTES:
            self._step.counts["sequences_refused"] += 1
            detail = f"{len(state.open)} sequences of this user are open, allowed are {MAX_OPEN} and {MAX_BYTES} bytes"
            self._step.reject(moment.topic, moment.record, reasons.RULE_STATE_FULL, detail, rule.name)
            self._log.event(decisions.REFUSED, rule, event.fields, detail)
            return
        self._record(BEGUN, user_id, opening)
        if self._log.is_on:
            self._log.event(decisions.BEGUN, rule, event.fields, f"until {rfc_3339(opening.end_ms)}")
        self._count(rule, "begun", "sequences_begun")

    def needs_user(self, user_id: str, stream_ms: int) -> bool:
        """Whether a sequence that is over by ``stream_ms`` may fire."""
        return any(one.fields and self._rule_of(one) for one in over(self._view.rule_state(user_id), stream_ms))

    def _rule_of(self, opening: OpenSequence) -> Rule | None:
        """The rule that a sequence is of, if one of its name and kind is live."""
        rule = self._filters.by_name.get(opening.rule)
        if (
            rule is None
            or rule.sequence is None
            or (rule.sequence.not_followed_by is not None) is not bool(opening.fields)
        ):
            return None
        return rule

    def settle(self, user_id: str, stream_ms: int) -> None:
        """End the sequences of a user that are over by ``stream_ms``; those that nothing followed fire."""
        for opening in over(self._view.rule_state(user_id), stream_ms):
            self._record(ENDED, user_id, opening.rule, opening.event_id, opening.match)
            rule = self._rule_of(opening)
            if rule is None:
                self._step.counts["sequences_dropped"] += 1
                self._log.sequence(decisions.DROPPED, user_id, opening, "no rule with this sequence is live")
            elif opening.fields:
                self._time_out(user_id, opening, rule)
            else:
                self._log.sequence(decisions.EXPIRED, user_id, opening, "nothing followed in time")

    def _time_out(self, user_id: str, opening: OpenSequence, rule: Rule) -> None:
        user = self._view.users[user_id]
        fields = orjson.loads(opening.fields)
        if self._passes_over(rule, user):
            self._count(rule, "skipped", "rules_skipped")
            self._log.event(decisions.SKIPPED, rule, fields, f"profile is {user.enrichment}")
            return
        self._count(rule, "timed_out", "sequences_timed_out")
        self._log.event(decisions.TIMED_OUT, rule, fields)
        record = Record(NO_COORDINATE, NO_COORDINATE, opening.begun_ms, user_id.encode(), opening.fields)
        moment = _Moment(user_id, opening.event_id, fields, user, user.visit, "", record)
        self._fire(rule, moment, opening.end_ms, opening.key)

    # Firing

    def _fire(self, rule: Rule, moment: _Moment, at_ms: int, key: str | None) -> None:
        """Fire unless cooldown or cap stop it; what quiet hours hold is kept."""
        state = self._view.rule_state(moment.user_id)
        if cools_down(state, rule, key, at_ms):
            self._count(rule, "cooled_down", "rules_cooled_down")
            if self._log.is_on:
                detail = None if key is None else f"key {short(key)}"
                self._log.event(decisions.COOLED_DOWN, rule, moment.fields, detail)
            return
        if rule.cap is not None and is_capped(state, rule, moment.profile, at_ms):
            self._count(rule, "capped", "rules_capped")
            if self._log.is_on:
                self._log.event(decisions.CAPPED, rule, moment.fields, f"{rule.cap.count} {_span_of(rule.cap)}")
            return
        if (rule.quiet_hours or (rule.cap and rule.cap.per)) and has_bad_zone(rule.time_zone, moment.profile):
            self._step.counts["time_zones_unknown"] += 1
        self._count(rule, "fired")
        if rule.cooldown is not None or rule.cap is not None:
            self._remember(rule, moment, at_ms, key)
        until_ms = None
        if rule.quiet_hours is not None:
            zone = zone_for(rule.time_zone, moment.profile)
            until_ms = quiet_until_ms(self._now_ms, rule.quiet_hours.start, rule.quiet_hours.end, zone)
        body_of = functools.partial(moment.body, rule)
        actions = fire(rule, moment.user_id, moment.event_id, body_of, self._rule_set, at_ms)
        for action in actions:
            if (excess := _excess(action)) is not None:
                self._step.reject(moment.topic, moment.record, reasons.KAFKA_ACTION_TOO_LARGE, excess, rule.name)
                self._log.event(decisions.REFUSED, rule, moment.fields, excess, action)
            elif until_ms is None:
                self._log.event(decisions.FIRED, rule, moment.fields, None, action)
                self._delivering.go_out(action, moment.event_id, moment.topic, moment.record)
            else:
                self._hold(rule, moment, action, until_ms)

    def _remember(self, rule: Rule, moment: _Moment, at_ms: int, key: str | None) -> None:
        user_id = moment.user_id
        for slot, keep, until_ms in firings_of(rule, moment.profile, key, at_ms, self._settings.allowed_lateness_ms):
            state = self._view.rule_state(user_id)
            if slot != CAP and len(state.fired) >= MAX_COOLDOWN_KEYS and (rule.name, slot) not in state.fired:
                cooldowns = [one for one in state.fired.values() if one.slot != CAP]
                if len(cooldowns) >= MAX_COOLDOWN_KEYS:
                    first = min(cooldowns, key=lambda one: (one.until_ms, one.rule, one.slot))
                    self._record(UNFIRED, user_id, first.rule, first.slot)
                    self._step.counts["cooldowns_cut"] += 1
            self._record(FIRED, user_id, rule.name, slot, at_ms, keep, until_ms)

    def _hold(self, rule: Rule, moment: _Moment, action: FiredAction, until_ms: int) -> None:
        zone = zone_for(rule.time_zone, moment.profile).key
        held = HeldAction(
            rule.name,
            rule.version,
            encode_action(action.action),
            action.action_id,
            moment.event_id,
            until_ms,
            zone,
            action.body,
            action.rule_set,
            action.at_ms,
        )
        waiting = self._view.rule_state(moment.user_id).held
        if any(one.action_id == held.action_id for one in waiting):
            # The same event again, long after it was last known: the first decision stands.
            self._log.event(decisions.HELD, rule, moment.fields, "already", action)
            return
        if len(waiting) >= MAX_HELD or sum(one.nbytes for one in waiting) + held.nbytes > MAX_BYTES:
            self._step.counts["actions_refused"] += 1
            detail = f"{len(waiting)} actions of this user are held, allowed are {MAX_HELD} and {MAX_BYTES} bytes"
            self._step.reject(moment.topic, moment.record, reasons.RULE_STATE_FULL, detail, rule.name)
            self._log.event(decisions.REFUSED, rule, moment.fields, detail, action)
            return
        self._record(HELD, moment.user_id, held)
        self._count(rule, "held", "actions_held")
        if self._log.is_on:
            self._log.event(decisions.HELD, rule, moment.fields, f"until {rfc_3339(until_ms)}", action)

    def release(self, user_id: str) -> None:
        """Let the actions of a user go that quiet hours held until now; if it is quiet again, they go on waiting."""
        for held in [one for one in self._view.rule_state(user_id).held if one.until_ms <= self._now_ms]:
            rule, zone, until_ms = self._filters.by_name.get(held.rule), zone_of(held.zone), None
            if rule is not None and rule.quiet_hours is not None and zone is not None:
                until_ms = quiet_until_ms(self._now_ms, rule.quiet_hours.start, rule.quiet_hours.end, zone)
            if until_ms is not None:
                self._record(HELD, user_id, msgspec.structs.replace(held, until_ms=until_ms))
                self._log.held(decisions.HELD, user_id, held, f"until {rfc_3339(until_ms)}")
                continue
            self._record(RELEASED, user_id, held.action_id)
            if rule is None:
                self._step.counts["held_dropped"] += 1
                self._log.held(decisions.DROPPED, user_id, held, "no rule of this name is live")
                continue
            self._log.held(decisions.RELEASED, user_id, held)
            action = decode_action(held.action)
            fired = FiredAction(
                held.action_id, user_id, held.rule, held.version, action, held.body, held.rule_set, held.at_ms
            )
            record = Record(NO_COORDINATE, NO_COORDINATE, self._now_ms, user_id.encode(), b"")
            self._delivering.go_out(fired, held.event_id, "", record)
            self._count(rule, "released", "held_released")


def _excess(fired: FiredAction) -> str | None:
    """How much too large an action is for Kafka, which would refuse it on every replay; None: it is not."""
    if not isinstance(fired.action, KafkaAction) or len(fired.body) <= MAX_PRODUCED_BYTES:
        return None
    return f"action {fired.action.name!r}: {len(fired.body)} bytes, allowed are {MAX_PRODUCED_BYTES}"


def _span_of(cap: Cap) -> str:
    return f"in {cap.window}" if cap.window is not None else f"per {cap.per}"
