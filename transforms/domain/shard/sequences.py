"""Sequences of events: they begin, are followed, or end without (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Collection

from transforms.domain.base import exact_json
from transforms.domain.base.calendar import rfc_3339
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.event import Event
from transforms.domain.events.record import Record
from transforms.domain.rules import open_sequences
from transforms.domain.rules.model import Rule
from transforms.domain.rules.sequence_model import Sequence
from transforms.domain.rules.state import MAX_BYTES, MAX_OPEN, OpenSequence
from transforms.domain.shard import decisions
from transforms.domain.shard.facts import FiringsExpired, SequenceBegun, SequenceEnded
from transforms.domain.shard.firing import Firing
from transforms.domain.shard.group_picks import GroupPicks
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.shard.trigger import Trigger
from transforms.domain.shard.webhook_dispatch import NO_COORDINATE


class Sequences:
    """Begins and ends the sequences of rules within one step."""

    __slots__ = ("_firing", "_picks", "_scope")

    def __init__(self, scope: StepScope, firing: Firing, picks: GroupPicks) -> None:
        self._scope = scope
        self._firing = firing
        self._picks = picks

    def follow(
        self,
        rule: Rule,
        sequence: Sequence,
        trigger: Trigger,
        event: Event,
        matches: Collection[str],
        steps: Collection[int],
    ) -> None:
        """End the steps of open sequences that the event follows; a ``followed_by`` rule fires once at the last."""
        scope = self._scope
        state = scope.state.rule_states.of(event.user_id)
        followed = open_sequences.followed_by(state, rule, matches, event.timestamp_ms, steps)
        last = len(sequence.all_steps) - 1
        if sequence.begun_readers:
            followed = [open_ for open_ in followed if self._is_met(sequence, trigger, open_)]
        followed.sort(key=lambda open_: open_.begun_ms)
        # Later steps first: what comes to a step takes the place of what has waited there for longer.
        for open_ in sorted(followed, key=lambda open_: -open_.step):
            scope.record(SequenceEnded(event.user_id, rule.name, open_.event_id, open_.match))
            if open_.step < last:
                self._advance(rule, open_, event)
            shown = "sequence" if last == 0 else f"step {open_.step + 1} of the sequence"
            scope.log.event(decisions.FOLLOWED, rule, event.fields, f"{shown} that event {open_.event_id} began")
        if followed:
            scope.count(rule, "followed", "sequences_followed", len(followed))
        done = [open_ for open_ in followed if open_.step == last]
        if done and not sequence.waits_for_nothing:
            last_done = done[-1]
            begun = exact_json.loads(last_done.begun) if last_done.begun else None
            self._firing.fire(rule, trigger, event.timestamp_ms, event.received_ms, last_done.key, begun)

    @staticmethod
    def _is_met(sequence: Sequence, trigger: Trigger, open_: OpenSequence) -> bool:
        """Whether the event meets the condition of this very sequence, if that reads the event that began it."""
        key = (open_.rule, open_.step, open_.event_id, open_.match)
        return open_.step not in sequence.begun_readers or key in trigger.met

    def _advance(self, rule: Rule, open_: OpenSequence, event: Event) -> None:
        """Have a sequence wait for its next step, in place of one that has waited for it for longer.

        It ends if another one waits for that step since a later event.
        """
        scope, user_id = self._scope, event.user_id
        state = scope.state.rule_states.of(user_id)
        replaced, is_late = open_sequences.in_its_place(state, rule, open_.match, event.timestamp_ms, open_.step + 1)
        if is_late:
            return
        if replaced is not None:
            scope.record(SequenceEnded(user_id, rule.name, replaced.event_id, replaced.match))
        advanced = open_sequences.next_step(rule, open_, event, scope.settings.allowed_lateness_ms)
        scope.record(SequenceBegun(user_id, advanced))

    def begin(self, rule: Rule, trigger: Trigger, event: Event, match: str, key: str | None) -> None:
        """Begin a sequence, in place of an open one that began earlier; an open one that began later stays."""
        scope, user_id, at_ms = self._scope, event.user_id, event.timestamp_ms
        state = scope.state.rule_states.of(user_id)
        replaced, is_late = open_sequences.in_its_place(state, rule, match, at_ms, 0)
        if replaced is not None:
            scope.record(SequenceEnded(user_id, rule.name, replaced.event_id, match))
        if is_late:
            scope.log.event(decisions.NOT_BEGUN, rule, event.fields, "a sequence that began later is open")
            return
        sequence = open_sequences.begin_sequence(rule, match, event, key, scope.settings.allowed_lateness_ms)
        opened = scope.state.rule_states.of(user_id).open
        open_bytes = sum(other.nbytes for other in opened)
        if len(opened) >= MAX_OPEN or open_bytes + sequence.nbytes > MAX_BYTES:
            scope.result.counts["sequences_refused"] += 1
            detail = f"{len(opened)} sequences of this user are open, allowed are {MAX_OPEN} and {MAX_BYTES} bytes"
            scope.result.reject(trigger.topic, trigger.record, reasons.RULE_STATE_FULL, detail, rule.name)
            scope.log.event(decisions.REFUSED, rule, event.fields, detail)
            return
        scope.record(SequenceBegun(user_id, sequence))
        if scope.log.is_on:
            scope.log.event(decisions.BEGUN, rule, event.fields, f"until {rfc_3339(sequence.end_ms)}")
        scope.count(rule, "begun", "sequences_begun")

    def needs_profile(self, user_id: str, stream_ms: int) -> bool:
        """Whether a sequence of the user that is due at ``stream_ms`` may fire."""
        due = open_sequences.due_sequences(self._scope.state.rule_states.of(user_id), stream_ms)
        return any(self._fires(sequence, self._rule_of(sequence)) for sequence in due)

    def settle(self, user_id: str, stream_ms: int) -> None:
        """End the user's sequences that are due at ``stream_ms``, and forget the firings that are kept until then.

        A sequence of a ``not_followed_by`` rule fires.
        """
        scope = self._scope
        for sequence in open_sequences.due_sequences(scope.state.rule_states.of(user_id), stream_ms):
            scope.record(SequenceEnded(user_id, sequence.rule, sequence.event_id, sequence.match))
            rule = self._rule_of(sequence)
            if rule is None:
                scope.result.counts["sequences_dropped"] += 1
                scope.log.sequence(decisions.DROPPED, user_id, sequence, "no rule with this sequence is live")
            elif self._fires(sequence, rule):
                self._time_out(user_id, sequence, rule)
            else:
                scope.log.sequence(decisions.EXPIRED, user_id, sequence, "nothing followed in time")
        if self._firing.contenders:
            self._picks.decide()
        due_ms = (slot.due_ms(0) for slot in scope.state.rule_states.of(user_id).fired.values())
        if any(at_ms is not None and at_ms <= stream_ms for at_ms in due_ms):
            scope.record(FiringsExpired(user_id, stream_ms))

    def _rule_of(self, sequence: OpenSequence) -> Rule | None:
        """The live rule of a sequence; None if no rule has this name and this kind of sequence."""
        rule = self._scope.filters.by_name.get(sequence.rule)
        if rule is None or rule.sequence is None or sequence.step >= len(rule.sequence.all_steps):
            return None
        return rule if rule.sequence.waits_for_nothing is bool(sequence.fields) else None

    def _fires(self, sequence: OpenSequence, rule: Rule | None) -> bool:
        """Whether the rule fires if nothing follows: the last step is not to follow, and is what is waited for."""
        if rule is None or rule.sequence is None:
            return False
        return rule.sequence.waits_for_nothing and sequence.step == len(rule.sequence.all_steps) - 1

    def _time_out(self, user_id: str, sequence: OpenSequence, rule: Rule) -> None:
        scope = self._scope
        user = scope.state.users[user_id]
        fields = exact_json.loads(sequence.fields)
        if scope.skips(rule, user):
            scope.count(rule, "skipped", "rules_skipped")
            scope.log.event(decisions.SKIPPED, rule, fields, f"profile is {user.enrichment}")
            return
        scope.count(rule, "timed_out", "sequences_timed_out")
        scope.log.event(decisions.TIMED_OUT, rule, fields)
        record = Record(NO_COORDINATE, NO_COORDINATE, sequence.begun_ms, user_id.encode(), sequence.fields)
        trigger = Trigger(user_id, sequence.event_id, fields, user, user.visit, "", record)
        self._firing.fire(rule, trigger, sequence.end_ms, sequence.received_ms, sequence.key, fields)
