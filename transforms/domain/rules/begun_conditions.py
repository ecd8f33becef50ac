"""Conditions of sequences that read ``begun``: each is asked once for every open sequence that an event may follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from transforms.domain.base import exact_json
from transforms.domain.events.event import Event, with_exact_integers
from transforms.domain.rules.engine import Columns, Engine, Outcome, OutcomeKind
from transforms.domain.rules.model import Rule
from transforms.domain.rules.open_sequences import followed_by, matches_of
from transforms.domain.rules.state import OpenSequence, RuleState

# Rule name, step, id of the event that began, and match, of an open sequence whose condition an event meets.
Met = tuple[str, int, str, str]
# The arguments of ``Engine.set_inputs`` but for ``begun``.
Inputs = tuple[dict[str, Any], dict[str, Any], dict[str, Any], str, Sequence[int]]

_NOT_ALLOWED = Outcome(OutcomeKind.NOT_ALLOWED)


class BegunConditions:
    """The conditions of one rule set that read ``begun``: rule and step by program number."""

    def __init__(self, conditions: Mapping[int, tuple[Rule, int]]) -> None:
        self.numbers = frozenset(conditions)
        self._conditions = conditions

    def questions(self, event: Event, selected: Sequence[int], state: RuleState) -> list[tuple[int, OpenSequence]]:
        """The selected conditions with the open sequences that the event is in time for, and has the match of."""
        questions = []
        for number in self.numbers.intersection(selected) if state.open else ():
            rule, step = self._conditions[number]
            matched = rule.sequence.matched if rule.sequence is not None else None
            matches = matches_of(matched.followed, with_exact_integers(event)) if matched else [""]
            opened = followed_by(state, rule, matches, event.timestamp_ms, (step,))
            questions += [(number, sequence) for sequence in opened]
        return questions

    def ask(
        self,
        engine: Engine,
        questions: Sequence[tuple[int, OpenSequence]],
        inputs: Inputs,
        history: Callable[[], Columns],
    ) -> tuple[dict[int, Outcome], frozenset[Met]]:
        """Run the conditions; returns an outcome for each of them, errors before others, and what the event meets."""
        outcomes: dict[int, Outcome] = {}
        met: set[Met] = set()
        for number, sequence in questions:
            engine.set_inputs(*inputs, begun=_begun(sequence))
            outcome = engine.run([number], None).get(number, _NOT_ALLOWED)
            if outcome.kind is OutcomeKind.NEEDS_HISTORY:
                outcome = engine.run([number], history()).get(number, _NOT_ALLOWED)
            if outcome.kind is OutcomeKind.ALLOWED:
                met.add((sequence.rule, sequence.step, sequence.event_id, sequence.match))
            before = outcomes.get(number, _NOT_ALLOWED)
            kept = max(before, outcome, key=_weight)
            outcomes[number] = msgspec.structs.replace(kept, ms=before.ms + outcome.ms)
        cheap = [number for number, outcome in outcomes.items() if outcome == _NOT_ALLOWED]
        return {number: outcome for number, outcome in outcomes.items() if number not in cheap}, frozenset(met)


def _weight(outcome: Outcome) -> int:
    return {OutcomeKind.NOT_ALLOWED: 0, OutcomeKind.ALLOWED: 1}.get(outcome.kind, 2)


def _begun(sequence: OpenSequence) -> dict[str, Any]:
    """The event that began a sequence, with numbers that Lua takes; of an older set's sequence only the id is known."""
    raw = sequence.fields or sequence.begun
    if not raw:
        return {"event_id": sequence.event_id, "parameters": {}}
    try:
        fields: dict[str, Any] = orjson.loads(raw)
    except orjson.JSONDecodeError:  # an integer of more digits than a float has
        fields = exact_json.loads(raw)
    return fields
