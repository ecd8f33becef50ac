"""Which open sequences an event follows, what time makes due, and how sequences begin and go on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import orjson

from transforms.domain.base import exact_json
from transforms.domain.base.field_paths import MISSING, value_at
from transforms.domain.events.event import Event
from transforms.domain.rules.frequency import short
from transforms.domain.rules.model import Rule
from transforms.domain.rules.state import OpenSequence, RuleState


def match_of(path: str | None, event: Event) -> str | None:
    """The value that the events of a sequence must have, as text; None if the event lacks it."""
    return "" if path is None else _as_match(value_at(event.fields, path))


def matches_of(path: str | None, event: Event) -> list[str]:
    """The values that an event that follows may have: several where ``path`` leads into lists (``items[].sku``)."""
    if path is None:
        return [""]
    *lists, last = path.split("[]")
    values: list[Any] = [event.fields]
    for inner in lists:
        found = _inside(values, inner)
        values = [item for value in found if isinstance(value, list) for item in value]
    values = _inside(values, last)
    return [match for value in values if (match := _as_match(value)) is not None]


def _inside(values: list[Any], path: str) -> list[Any]:
    """The fields at a path of objects, or the values themselves if it is empty."""
    inner = path.removeprefix(".")
    return [value_at(value, inner) for value in values if isinstance(value, dict)] if inner else values


def _as_match(value: Any) -> str | None:
    if value is None or value is MISSING:
        return None
    return short(exact_json.dumps(_canonical(value), orjson.OPT_SORT_KEYS).decode())


def _canonical(value: Any) -> Any:
    """A JSON value in the form that equal values share: 1 and 1.0 are the same number."""
    if type(value) is float and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    return value


def followed_by(
    state: RuleState, rule: Rule, matches: Collection[str], at_ms: int, steps: Collection[int]
) -> list[OpenSequence]:
    """The open sequences of a rule, waiting for one of these steps, that an event at ``at_ms`` follows."""
    return [
        sequence
        for sequence in state.open
        if sequence.rule == rule.name
        and sequence.match in matches
        and sequence.step in steps
        and sequence.begun_ms <= at_ms <= sequence.end_ms
    ]


def in_its_place(state: RuleState, rule: Rule, match: str, at_ms: int, step: int) -> tuple[OpenSequence | None, bool]:
    """What becomes of the sequences in a step when another one of the same match comes to it at ``at_ms``.

    Returns:
        The open sequence whose place the new one takes, and whether it is too late, as one since a later event is open.
    """
    around = followed_by(state, rule, (match,), at_ms, (step,))
    if around:
        return max(around, key=lambda sequence: sequence.begun_ms), False
    same = (open_ for open_ in state.open if (open_.rule, open_.match, open_.step) == (rule.name, match, step))
    return None, any(open_.begun_ms > at_ms for open_ in same)


def due_sequences(state: RuleState, stream_ms: int) -> list[OpenSequence]:
    """Open sequences that are due at ``stream_ms``, in the order in which they are settled."""
    due = [sequence for sequence in state.open if sequence.due_ms <= stream_ms]
    return sorted(due, key=lambda sequence: (sequence.end_ms, sequence.begun_ms))


def begin_sequence(rule: Rule, match: str, event: Event, key: str | None, lateness_ms: int) -> OpenSequence:
    """The sequence that ``event`` begins; ``key`` is that of the rule's cooldown."""
    sequence = rule.sequence
    if sequence is None:
        raise ValueError(f"rule {rule.name} has no sequence")
    begun_ms = event.timestamp_ms
    end_ms, lag_ms = begun_ms + sequence.all_steps[0].within.ms, event.received_ms - begun_ms
    fields = begun = b""
    if sequence.waits_for_nothing:
        fields = exact_json.dumps(event.fields)
    elif rule.reads_begun:
        begun = exact_json.dumps(event.fields)
    due_ms = end_ms + lateness_ms
    return OpenSequence(rule.name, match, event.event_id, begun_ms, end_ms, due_ms, key, fields, lag_ms, begun=begun)


def next_step(rule: Rule, open_: OpenSequence, event: Event, lateness_ms: int) -> OpenSequence:
    """The sequence once ``event`` has ended the step that it waited for, and it is not the last."""
    sequence = rule.sequence
    if sequence is None:
        raise ValueError(f"rule {rule.name} has no sequence")
    begun_ms, step = event.timestamp_ms, open_.step + 1
    end_ms = begun_ms + sequence.all_steps[step].within.ms
    return msgspec.structs.replace(
        open_,
        begun_ms=begun_ms,
        end_ms=end_ms,
        due_ms=end_ms + lateness_ms,
        lag_ms=event.received_ms - begun_ms,
        step=step,
    )
