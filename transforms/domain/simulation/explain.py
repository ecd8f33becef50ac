"""Says why a rule does or does not fire: the value of each condition of its filter, at the state that it saw."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from transforms.adapters.lua.sandbox import CompileError, Sandbox
from transforms.domain.events.event import Event
from transforms.domain.rules.cases import Case
from transforms.domain.rules.files import LoadedRule
from transforms.domain.rules.filters import FilterSet, Verdict, columns_of
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import ShardSettings
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


def explain(loaded: LoadedRule, case: Case, settings: ShardSettings) -> Explanation:
    """Run the case's events and explain the last one."""
    filters = _Watched((loaded.rule,))
    run = CaseRun(loaded, case, settings, filters)
    fires = any(fired.event == len(case.events) for fired in run.fired)
    explanation = Explanation(loaded.rule, fires, [*run.refused, *run.errors])
    if filters.seen is not None and not run.refused:
        explanation.lines = _lines(loaded.rule, *filters.seen)
        explanation.lines += [f"  {text}" for what, text in _CAME_TO.items() if run.came_to[what]]
    return explanation


class _Watched(FilterSet):
    """Remembers what it was last asked about."""

    seen: tuple[Event, dict[str, Any], Visit, list[Any]] | None = None

    def evaluate(self, event: Event, visit: Visit, user: UserState) -> Verdict:
        self.seen = event, user.profile(), visit, user.history.rows()
        return super().evaluate(event, visit, user)


def _lines(rule: Rule, event: Event, profile: dict[str, Any], visit: Visit, rows: list[Any]) -> list[str]:
    try:
        Sandbox([("filter", f"({rule.filter}\n)", False)])
    except CompileError:
        return ["  its filter is a body with return: only expressions can be taken apart"]
    condition = take_apart(rule.filter)
    every = _leaves_last(condition)
    # Brackets around the whole, since `type(f(x), y)` would be two arguments.
    programs = [
        ("filter", f"type(({one.text}\n)) .. ':' .. (tostring(({one.text}\n))):sub(1, 100)", True) for one in every
    ]
    try:
        sandbox = Sandbox(programs)
    except CompileError:
        return []
    sandbox.give(event.fields, profile, visit.public())
    marks, texts = sandbox.run(None, columns_of(rows))
    following = iter(texts.split("\0"))
    values = {}
    for one, mark in zip(every, marks, strict=True):
        text = next(following) if mark in "ELV" else ""
        values[one.text] = _value(unquote(text.partition(":")[2])) if mark == "V" else f"error: {_without_place(text)}"
    lines: list[str] = []
    _show(condition, values, 1, lines)
    return lines


def _leaves_last(condition: Condition) -> list[Condition]:
    found = [condition]
    for part in condition.parts:
        found += _leaves_last(part)
    return found


def _without_place(message: str) -> str:
    return re.sub(r"^filter:\d+: ", "", message)


def _value(text: str) -> str:
    """``kind:text`` as Lua would write it."""
    kind, _, value = text.partition(":")
    if kind == "string":
        return f'"{value}"'
    return value if kind in ("number", "boolean", "nil") else kind


def _show(condition: Condition, values: dict[str, str], depth: int, lines: list[str], reached: bool = True) -> None:
    """Append the line of a condition and those of its parts, as far as Lua evaluates them."""
    value = values[condition.text] if reached else _NOT_REACHED
    told = ""
    if reached and condition.joined_by == "compared":
        sides = [(part.text, values[part.text]) for part in condition.parts]
        told = ", ".join(f"{text} is {seen}" for text, seen in sides if text != seen)
    shown = condition.text if len(condition.text) <= _SHOWN else f"{condition.text[: _SHOWN - 1]}…"
    lines.append(f"{'  ' * depth}{value:<6} {shown}{f'   ({told})' if told else ''}")
    if condition.joined_by in ("and", "or", "not"):
        go_on = reached
        for part in condition.parts:
            _show(part, values, depth + 1, lines, go_on)
            holds = values[part.text] not in ("false", "nil")
            go_on = go_on and holds is (condition.joined_by == "and")
