"""Says why a rule does or does not fire: the value of each condition of its filter, at the state that it saw."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import unquote

from transforms.domain.events.event import Event
from transforms.domain.rules.cases import Case
from transforms.domain.rules.engine import CompileError, EngineFactory, Outcome, OutcomeKind, Program, SourceChecker
from transforms.domain.rules.files import LoadedRule
from transforms.domain.rules.filters import FilterResult, FilterSet, columns_of
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_result import ShardSettings
from transforms.domain.simulation.case_runner import CaseRun
from transforms.domain.simulation.lua_conditions import Condition, take_apart
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit

_SHOWN: Final = 60
_NOT_REACHED: Final = "-"
# What else than its filter decides whether a rule fires, by the names of ``StepResult.rule_counts``.
_CAME_TO: Final = {
    "begun": "begins a sequence",
    "followed": "follows the event that began a sequence",
    "cooled_down": "stopped by its cooldown",
    "capped": "stopped by its cap",
    "held": "held: it is quiet hours",
}


@dataclass(slots=True)
class Explanation:
    """Of one rule and one event: whether it fires, why nothing could be said of it, and lines with each condition."""

    rule: Rule
    fires: bool
    problems: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class LuaSupport(EngineFactory, SourceChecker, Protocol):
    """What an explanation needs of Lua."""


def explain(loaded: LoadedRule, case: Case, settings: ShardSettings, lua: LuaSupport) -> Explanation:
    """Run the case's events and explain the last one."""
    filters = _Watched((loaded.rule,), lua, lambda: case.now)
    run = CaseRun(loaded, case, settings, lua, filters)
    fires = any(fired.event == len(case.events) for fired in run.fired)
    explanation = Explanation(loaded.rule, fires, [*run.refused, *run.errors])
    if filters.seen is not None and not run.refused:
        explanation.lines = _lines(loaded.rule, lua, *filters.seen)
        explanation.lines += [f"  {text}" for what, text in _CAME_TO.items() if run.came_to[what]]
    return explanation


class _Watched(FilterSet):
    """Remembers the inputs of its last evaluation."""

    seen: tuple[Event, dict[str, Any], Visit, list[Any]] | None = None

    def evaluate(self, event: Event, visit: Visit, user: UserState) -> FilterResult:
        self.seen = event, user.profile(), visit, user.history.rows()
        return super().evaluate(event, visit, user)


def _lines(
    rule: Rule, lua: LuaSupport, event: Event, profile: dict[str, Any], visit: Visit, rows: list[Any]
) -> list[str]:
    if not lua.check(rule.filter, "filter").is_expression:
        return ["  its filter is a body with return: only expressions can be taken apart"]
    condition = take_apart(rule.filter)
    conditions = _with_parts(condition)
    # Brackets around the whole, since `type(f(x), y)` would be two arguments.
    programs = [
        Program("filter", f"type(({part.text}\n)) .. ':' .. (tostring(({part.text}\n))):sub(1, 100)", wants_value=True)
        for part in conditions
    ]
    try:
        engine = lua.engine(programs)
    except CompileError:
        return []
    engine.set_inputs(event.fields, profile, visit.public())
    outcomes = engine.run(range(len(programs)), columns_of(rows))
    engine.close()
    values = {part.text: _shown_value(outcomes[number]) for number, part in enumerate(conditions)}
    lines: list[str] = []
    _show(condition, values, 1, lines)
    return lines


def _with_parts(condition: Condition) -> list[Condition]:
    """The condition and all that it consists of, before their parts."""
    conditions = [condition]
    for part in condition.parts:
        conditions += _with_parts(part)
    return conditions


def _shown_value(outcome: Outcome) -> str:
    """A value, ``kind:text`` after the letter of its own kind, as Lua would write it; or the error."""
    if outcome.kind is not OutcomeKind.VALUE:
        message = re.sub(r"^filter:\d+: ", "", outcome.text)
        return f"error: {message}"
    kind, _, text = unquote(outcome.text.partition(":")[2]).partition(":")
    if kind == "string":
        return f'"{text}"'
    return text if kind in ("number", "boolean", "nil") else kind


def _show(condition: Condition, values: dict[str, str], depth: int, lines: list[str], reached: bool = True) -> None:
    """Append the line of a condition and those of its parts, as far as Lua evaluates them."""
    value = values[condition.text] if reached else _NOT_REACHED
    sides = ""
    if reached and condition.joined_by == "compared":
        parts = [(part.text, values[part.text]) for part in condition.parts]
        sides = ", ".join(f"{text} is {seen}" for text, seen in parts if text != seen)
    shown = condition.text if len(condition.text) <= _SHOWN else f"{condition.text[: _SHOWN - 1]}…"
    lines.append(f"{'  ' * depth}{value:<6} {shown}{f'   ({sides})' if sides else ''}")
    if condition.joined_by in ("and", "or", "not"):
        is_reached = reached
        for part in condition.parts:
            _show(part, values, depth + 1, lines, is_reached)
            holds = values[part.text] not in ("false", "nil")
            is_reached = is_reached and holds is (condition.joined_by == "and")
