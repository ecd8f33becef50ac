"""The rules' part of one step of a shard: runs the filters and acts on what they allow."""

from __future__ import annotations

from transforms.domain.base.calendar import is_active
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.event import Event, with_exact_integers
from transforms.domain.events.record import Record
from transforms.domain.rules.filters import NO_RULE, FilterResult
from transforms.domain.rules.model import Active, Rule
from transforms.domain.rules.open_sequences import match_of, matches_of
from transforms.domain.rules.sequence_model import Sequence
from transforms.domain.rules.state import MAX_BYTES, MAX_OPEN, has_bad_zone, zone_for
from transforms.domain.shard import decisions
from transforms.domain.shard.firing import Firing
from transforms.domain.shard.group_picks import GroupPicks
from transforms.domain.shard.held_actions import HeldActions
from transforms.domain.shard.sequences import Sequences
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.shard.trigger import Trigger
from transforms.domain.shard.webhook_dispatch import WebhookDispatch
from transforms.domain.users.user import PENDING, UserState
from transforms.domain.users.visit import Visit


class RuleEngine:
    """Applies the live rules to the events of one step.

    Attributes:
        sequences: the sequences of rules, which stream time ends.
        held: the held actions, which processing time releases.
        picks: what groups pick, which stream time ends.
    """

    __slots__ = ("_firing", "_scope", "held", "picks", "sequences")

    def __init__(self, scope: StepScope, dispatch: WebhookDispatch) -> None:
        self._scope = scope
        self._firing = Firing(scope, dispatch)
        self.held = HeldActions(scope, dispatch)
        self.picks = GroupPicks(scope, self._firing, self.held)
        self.sequences = Sequences(scope, self._firing, self.picks)

    def handle_event(self, topic: str, record: Record, event: Event, user: UserState, visit: Visit | None) -> None:
        """Run all rules on an event.

        Args:
            topic: topic of ``record``, for dead letters.
            user: the user's state before the event.
            visit: the visit that the event belongs to, with the event counted.
        """
        scope, result, log = self._scope, self._scope.result, self._scope.log
        filters = scope.filters
        logged = len(result.decisions)
        if filters.reads_begun:
            filter_result = filters.evaluate(event, visit, user, scope.state.rule_states.of(event.user_id))
        else:
            filter_result = filters.evaluate(event, visit, user)
        result.evaluated_events += 1
        if filter_result is NO_RULE and not log.is_sampling and (filters.waits or user.has_profile):
            return
        if filter_result.tripped or filter_result.quarantined:
            self._count_limits(filter_result)
        if not user.has_profile and not filters.waits:
            result.counts["rules_skipped"] += filters.skipping
        if filter_result.allowed or filter_result.followed:
            self._make_room(event, user)
            event = with_exact_integers(event)
            trigger = Trigger(
                event.user_id, event.event_id, event.fields, user, visit, topic, record, filter_result.met
            )
            allowed = {rule.name for rule in filter_result.allowed}
            followed = filter_result.followed
            for rule in filters.rules if followed else filter_result.allowed:
                if rule.name in allowed or rule.name in followed:
                    key = filter_result.keys.get(rule.name)
                    self._apply(rule, trigger, event, rule.name in allowed, followed.get(rule.name, ()), key)
            if self._firing.contenders:
                self._decide(event.user_id, user, event.received_ms)
        for rule, message in filter_result.errors:
            if not scope.skips(rule, user):
                scope.count(rule, "error", "rule_errors")
                result.reject(topic, record, reasons.RULE_ERROR, message, rule.name)
                log.event(decisions.ERROR, rule, event.fields, message)
        if log.is_sampling:
            self._log_silent_rules(event, user, filter_result, logged)

    def _make_room(self, event: Event, user: UserState) -> None:
        """End what was due before the event's record, for a user with half of the rule state that is allowed.

        A job that catches up is given a user's events of hours before the stream's time moves. All of the user's
        records are in one partition if its key is the user, so that the stream need not be asked.
        """
        scope = self._scope
        state = scope.state.rule_states.get(event.user_id)
        if state is None or not (len(state.open) >= MAX_OPEN // 2 or state.nbytes >= MAX_BYTES // 2):
            return
        if scope.settings.user_key == "record" and user.enrichment != PENDING:
            self.settle(event.user_id, event.received_ms - scope.settings.out_of_order_ms)

    def needs_profile(self, user_id: str, stream_ms: int) -> bool:
        """Whether what is due at ``stream_ms`` needs the user's profile."""
        return self.sequences.needs_profile(user_id, stream_ms) or self.picks.needs_profile(user_id, stream_ms)

    def settle(self, user_id: str, stream_ms: int) -> None:
        """Do what is due at ``stream_ms`` for a user, in the order of the times."""
        self._pick(user_id, stream_ms)
        self.sequences.settle(user_id, stream_ms)
        if self.picks.next_due_ms(user_id, stream_ms) is not None:
            self.settle(user_id, stream_ms)

    def _pick(self, user_id: str, until_ms: int) -> None:
        """Have groups pick that are due at ``until_ms``, and end the sequences that are due before."""
        picks = self.picks
        while (due_ms := picks.next_due_ms(user_id, until_ms)) is not None:
            # A sequence that ends before may fire, and have a group pick even earlier.
            self.sequences.settle(user_id, due_ms - 1)
            first_ms = picks.next_due_ms(user_id, due_ms)
            picks.pick(user_id, due_ms if first_ms is None else first_ms)

    def _decide(self, user_id: str, user: UserState, received_ms: int) -> None:
        """Decide about the rules of groups that would fire at an event.

        All records of the user up to this one are handled. Groups that pick by then come first, however far the stream
        is, so that a replay decides the same. Only one that asks for the profile waits until it is known.
        """
        is_due = self.picks.next_due_ms(user_id, received_ms) is not None
        if is_due and (user.enrichment != PENDING or not self.picks.needs_profile(user_id, received_ms)):
            contenders, self._firing.contenders = self._firing.contenders, []
            self._pick(user_id, received_ms)
            self._firing.contenders = contenders
        self.picks.decide()

    def _count_limits(self, filter_result: FilterResult) -> None:
        result = self._scope.result
        result.counts["rules_tripped"] += len(filter_result.tripped)
        result.counts["rules_quarantined"] += len(filter_result.quarantined)
        result.rule_counts.update((rule.name, "tripped") for rule in filter_result.tripped)
        result.rule_counts.update((rule.name, "quarantined") for rule in filter_result.quarantined)

    def _apply(
        self, rule: Rule, trigger: Trigger, event: Event, is_allowed: bool, steps: tuple[int, ...], key: str | None
    ) -> None:
        """Apply a rule whose filter allowed the event, or steps of whose sequence did, or both."""
        scope, log = self._scope, self._scope.log
        is_skipped = scope.skips(rule, trigger.user)
        if is_allowed and not is_skipped:
            scope.count(rule, "allowed", "rule_matches")
        elif is_allowed and log.is_on:
            log.event(decisions.SKIPPED, rule, event.fields, f"profile is {trigger.user.enrichment}")
        if is_allowed and not is_skipped and rule.active is not None:
            is_allowed = self._is_active(rule, rule.active, trigger, event)
        if rule.sequence is None:
            if is_allowed and not is_skipped:
                self._firing.fire(rule, trigger, event.timestamp_ms, event.received_ms, key)
            return
        self._apply_sequence(rule, rule.sequence, trigger, event, is_allowed and not is_skipped, steps, key)

    def _apply_sequence(
        self,
        rule: Rule,
        sequence: Sequence,
        trigger: Trigger,
        event: Event,
        begins: bool,
        steps: tuple[int, ...],
        key: str | None,
    ) -> None:
        matched = sequence.matched
        matches = matches_of(matched.followed if matched else None, event) if steps else []
        match = match_of(matched.begun if matched else None, event) if begins else None
        is_skipped = self._scope.skips(rule, trigger.user)
        if matched is not None and not is_skipped and self._scope.log.is_on:
            lacks = [] if matches or not steps else [matched.followed]
            lacks += [] if match is not None or not begins else [matched.begun]
            if lacks:
                detail = f"the event has no {' and no '.join(dict.fromkeys(lacks))}"
                self._scope.log.event(decisions.NO_MATCH, rule, event.fields, detail)
        if matches and not (is_skipped and not sequence.waits_for_nothing):
            self.sequences.follow(rule, sequence, trigger, event, matches, steps)
        if match is not None:
            self.sequences.begin(rule, trigger, event, match, key)

    def _is_active(self, rule: Rule, active: Active, trigger: Trigger, event: Event) -> bool:
        scope = self._scope
        if has_bad_zone(rule.time_zone, trigger.profile):
            scope.result.counts["time_zones_unknown"] += 1
        zone = zone_for(rule.time_zone, trigger.profile)
        if is_active(event.timestamp_ms, active.start, active.end, zone, active.weekdays):
            return True
        scope.count(rule, "inactive", "rules_inactive")
        scope.log.event(decisions.INACTIVE, rule, event.fields)
        return False

    def _log_silent_rules(self, event: Event, user: UserState, filter_result: FilterResult, logged: int) -> None:
        """Log a sample of the rules of which the log has nothing since it had ``logged`` decisions."""
        scope, log = self._scope, self._scope.log
        for rule in log.sampled(event.user_id, event.event_id, scope.filters.rules, logged):
            if rule in filter_result.quarantined:
                log.event(decisions.SET_ASIDE, rule, event.fields)
            elif scope.skips(rule, user):
                log.event(decisions.SKIPPED, rule, event.fields, f"profile is {user.enrichment}")
            else:
                log.event(decisions.NOT_ALLOWED, rule, event.fields)
