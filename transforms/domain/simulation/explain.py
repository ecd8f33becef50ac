"""Explains why a rule fires or not: the value of each condition of its filter, for the state that the filter saw."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import unquote

from transforms.domain.events.event import Event
from transforms.domain.rules.cases import Case
from transforms.domain.rules.clocks import Clocks
from transforms.domain.rules.engine import CompileError, EngineFactory, Outcome, OutcomeKind, Program, SourceChecker
from transforms.domain.rules.files import LoadedRule
from transforms.domain.rules.filters import columns_of
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.case_runner import CaseRun
from transforms.domain.simulation.lua_conditions import Condition, take_apart
from transforms.domain.users.history import Row
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit, filter_visit

_SHOWN: Final = 60
_NOT_REACHED: Final = "-"
# What apart from its filter decides whether a rule fires, by the names of ``StepResult.rule_counts``.
_OUTCOMES: Final = {
    "begun": "begins a sequence",
    "followed": "follows the event that began a sequence",
    "cooled_down": "stopped by its cooldown",
    "capped": "stopped by its cap",
    "inactive": "outside of its active days and hours",
    "held": "held: it is quiet hours",
    "dropped": "dropped: it is quiet hours",
}


# What a filter evaluates: the event, the profile, the visit, the history's rows, and where the profile is from.
_Seen = tuple[Event, dict[str, Any], Visit | None, list[Row], str]


@dataclass(slots=True)
class Explanation:
    """Whether a rule fires for an event, why it could not be explained (``problems``), and a line a condition."""

    rule: Rule
    fires: bool
    problems: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class LuaSupport(EngineFactory, SourceChecker, Protocol):
    """What an explanation needs of Lua."""


def explain(loaded: LoadedRule, case: Case, settings: ShardSettings, lua: LuaSupport) -> Explanation:
    """Run the case's events and explain the last one."""
    last_seen: list[_Seen] = []

    def on_evaluation(event: Event, visit: Visit | None, user: UserState) -> None:
        last_seen[:] = [(event, user.profile(), visit, user.history.rows(), user.enrichment)]

    run = CaseRun(loaded, case, settings, lua, on_evaluation)
    fires = any(fired.event == len(case.events) for fired in run.fired)
    explanation = Explanation(loaded.rule, fires, [*run.refused, *run.errors])
    if last_seen and not run.refused:
        explanation.lines = _lines(loaded.rule, lua, last_seen[0])
        explanation.lines += [f"  {text}" for name, text in _OUTCOMES.items() if run.last_event_counts[name]]
    return explanation


def _lines(rule: Rule, lua: LuaSupport, seen: _Seen) -> list[str]:
    event, profile, visit, rows, enrichment = seen
    if not lua.check(rule.filter, "filter").is_expression:
        return ["  its filter is a body with return: only expressions can be taken apart"]
    clocks = Clocks([(rule, rule.filter)])
    condition = take_apart(rule.filter)
    conditions = _parents_first(condition)
    # The brackets keep `f(x), y` from being two arguments of `type`.
    programs = [
        Program(
            "filter",
            f"type(({part.text}\n)) .. ':' .. (tostring(({part.text}\n))):sub(1, 100)",
            True,
            clocks.place_of(rule),
        )
        for part in conditions
    ]
    try:
        engine = lua.engine(programs)
    except CompileError:
        return []
    times = clocks.at(event.timestamp_ms, profile)
    engine.set_inputs(event.fields, profile, filter_visit(visit, event), enrichment, times)
    outcomes = engine.run(range(len(programs)), columns_of(rows))
    engine.close()
    values = {part.text: _shown_value(outcomes[number]) for number, part in enumerate(conditions)}
    lines: list[str] = []
    _show(condition, values, 1, lines)
    return lines


def _parents_first(condition: Condition) -> list[Condition]:
    return [condition, *(inner for part in condition.parts for inner in _parents_first(part))]


def _shown_value(outcome: Outcome) -> str:
    """Format a program's value, ``type:text``, as Lua source, or its error."""
    if outcome.kind is not OutcomeKind.VALUE:
        return f"error: {re.sub(r'^filter:[0-9]+: ', '', outcome.text)}"
    kind, _, text = unquote(outcome.text.partition(":")[2]).partition(":")
    if kind == "string":
        return f'"{text}"'
    return text if kind in ("number", "boolean", "nil") else kind


def _show(condition: Condition, values: dict[str, str], depth: int, lines: list[str], reached: bool = True) -> None:
    """Append the line of a condition and those of its parts; parts that Lua does not evaluate have no value."""
    value = values[condition.text] if reached else _NOT_REACHED
    operands = ""
    if reached and condition.joined_by == "compared":
        sides = [(part.text, values[part.text]) for part in condition.parts]
        operands = ", ".join(f"{text} is {value}" for text, value in sides if text != value)
    shown = condition.text if len(condition.text) <= _SHOWN else f"{condition.text[: _SHOWN - 1]}…"
    lines.append(f"{'  ' * depth}{value:<6} {shown}{f'   ({operands})' if operands else ''}")
    if condition.joined_by in ("and", "or", "not"):
        for part in condition.parts:
            _show(part, values, depth + 1, lines, reached)
            holds = values[part.text] not in ("false", "nil")
            reached = reached and holds is (condition.joined_by == "and")
