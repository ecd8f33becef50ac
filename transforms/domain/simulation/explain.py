"""Explains why a rule fires or not: the value of each condition of its filter, for the state that the filter saw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from transforms.domain.base import exact_json
from transforms.domain.base.calendar import wall_ms
from transforms.domain.base.field_paths import MISSING, value_at
from transforms.domain.events.event import Event
from transforms.domain.rules.cases import Case
from transforms.domain.rules.clocks import Clocks
from transforms.domain.rules.engine import CompileError, EngineFactory, Outcome, OutcomeKind, Program, SourceChecker
from transforms.domain.rules.files import LoadedRule
from transforms.domain.rules.filters import columns_of
from transforms.domain.rules.groups import unless_value
from transforms.domain.rules.model import DAYS, DROP, SKIP, WAIT, Active, Group, QuietHours, Rule
from transforms.domain.rules.open_sequences import matches_of
from transforms.domain.rules.sequence_model import Match
from transforms.domain.rules.state import zone_for
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.case_runner import CaseResult, CaseRun
from transforms.domain.simulation.lua_conditions import Condition, take_apart
from transforms.domain.users.history import Row
from transforms.domain.users.user import PENDING, UNAVAILABLE, UserState
from transforms.domain.users.visit import Visit, filter_visit

_SHOWN: Final = 60
_NOT_REACHED: Final = "-"
# What apart from its filter decides whether a rule fires, by the names of ``StepResult.rule_counts``.
_OUTCOMES: Final = {
    "begun": "begins a sequence",
    "followed": "follows the event that began a sequence",
    "cooled_down": "stopped by its cooldown",
    "capped": "stopped by its cap",
    "suppressed": "suppressed: the user gets nothing of its group",
    "pending": "waits until its group picks",
    "capped_by_group": "stopped by its group's cap",
    "outranked": "outranked: its group picked another rule",
    "expired": "expired before it could be sent",
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


def explained_failure(loaded: LoadedRule, result: CaseResult, settings: ShardSettings, lua: LuaSupport) -> list[str]:
    """Lines that explain the first event for which a case's rule did not do what is expected."""
    case, number = result.located.case, result.event
    if number < len(case.events):
        case = case.model_copy(update={"events": case.events[:number], "wait": None})
    explanation = explain(loaded, case, settings, lua)
    if not explanation.lines:
        return []
    return [f"event {number}: {'fires' if explanation.fires else 'does not fire'}", *explanation.lines]


def _lines(rule: Rule, lua: LuaSupport, seen: _Seen) -> list[str]:
    """The filter's conditions, then what else the rule says of when it fires, with values where it computes some."""
    lines = _taken_apart(rule, rule.filter, "its filter", lua, seen)
    event, profile, enrichment = seen[0], seen[1], seen[4]
    zone = zone_for(rule.time_zone, profile)
    is_missing = enrichment in (PENDING, UNAVAILABLE)
    if rule.on_missing_profile != WAIT or is_missing:
        outcome = ": this event is skipped" if rule.on_missing_profile == SKIP and is_missing else ""
        lines.append(f"  on_missing_profile: {rule.on_missing_profile}, and the profile is {enrichment}{outcome}")
    if rule.active is not None:
        hours = _hours(rule.active, zone)
        lines.append(f"  active: {hours}, and the event is on {_local_time(event.timestamp_ms, zone)}")
    lines += _of_sequence(rule, lua, seen)
    if rule.cooldown is not None:
        key = rule.cooldown.key
        of_key = "" if key is None else f", for each key {_cut(key)}, which is {_values(rule, [key], lua, seen)[0]}"
        lines.append(f"  cooldown: {rule.cooldown.time}{of_key}")
    if rule.cap is not None:
        span = f"in any {rule.cap.window}" if rule.cap.window is not None else f"a {rule.cap.per} of {zone.key}"
        lines.append(f"  cap: {rule.cap.count} {span}")
    if rule.quiet_hours is not None:
        mode = ": actions are dropped" if rule.quiet_hours.mode == DROP else ""
        lines.append(f"  quiet_hours: {_hours(rule.quiet_hours, zone)}{mode}")
    if rule.shared is not None:
        lines.append(f"  group: {rule.group}, priority {rule.priority}{_group(rule, rule.shared, lua, seen)}")
    if rule.expires is not None:
        lines.append(f"  expires: {rule.expires} after it was decided")
    if rule.recheck is not None:
        lines.append("  recheck, asked when they end; if it were asked at this event:")
        lines += [f"  {line}" for line in _taken_apart(rule, rule.recheck, "its recheck", lua, seen)]
    return lines


def _group(rule: Rule, group: Group, lua: LuaSupport, seen: _Seen) -> str:
    """What a group says, with the value of its ``unless``."""
    said = ""
    if group.cap is not None:
        zone = zone_for(group.time_zone, seen[1]).key
        span = f"in any {group.cap.window}" if group.cap.window is not None else f"a {group.cap.per} of {zone}"
        said += f", {group.cap.count} {span}"
    if group.within is not None:
        said += f", picks {group.within} after the first"
    if group.unless is not None:
        said += f", unless {_cut(group.unless)}, which is {_values(rule, [unless_value(group.unless)], lua, seen)[0]}"
    return said


def _hours(hours: Active | QuietHours, zone: ZoneInfo) -> str:
    days = "" if hours.days is None else f"{', '.join(hours.days)} "
    return f"{days}{hours.start} to {hours.end} of {zone.key}"


def _local_time(at_ms: int, zone: ZoneInfo) -> str:
    minutes = wall_ms(at_ms, zone) // 60_000
    return (
        f"{DAYS[(minutes // 1440 + 3) % 7]} at {minutes // 60 % 24:02}:{minutes % 60:02}"  # 1970-01-01 was a Thursday
    )


def _of_sequence(rule: Rule, lua: LuaSupport, seen: _Seen) -> list[str]:
    """Each step, with the values of its condition if the event is to follow."""
    lines: list[str] = []
    sequence = rule.sequence
    steps = sequence.all_steps if sequence is not None else ()
    for number, step in enumerate(steps, 1):
        kind = "followed_by" if step.followed_by is not None else "not_followed_by"
        of_steps = f" step {number} of {len(steps)}:" if len(steps) > 1 else ""
        match = _match(sequence.matched, seen[0]) if sequence is not None and sequence.matched is not None else ""
        lines.append(f"  sequence:{of_steps} {kind} within {step.within}{match}; as an event that follows:")
        source = step.followed_by or step.not_followed_by or ""
        if sequence is not None and number - 1 in sequence.begun_readers:
            lines.append("    it reads begun: it is asked for each open sequence, and has no value without one")
            continue
        lines += [f"  {line}" for line in _taken_apart(rule, source, f"its {kind}", lua, seen)]
    return lines


def _match(match: Match, event: Event) -> str:
    """The values that a sequence compares: of an event that begins it, and of one that follows."""
    begun = value_at(event.fields, match.begun)
    shown = "missing" if begun is MISSING else exact_json.dumps(begun).decode()
    if match.followed == match.begun:
        return f", match {match.begun} is {shown}"
    followed = ", ".join(matches_of(match.followed, event)) or "missing"
    return f", match {match.begun} is {shown} and {match.followed} is {followed}"


def _taken_apart(rule: Rule, source: str, name: str, lua: LuaSupport, seen: _Seen) -> list[str]:
    """The values of a Lua text's conditions, a line for each."""
    if not lua.check(source, "filter").is_expression:
        return [f"  {name} is a body with return: only expressions can be taken apart"]
    condition = take_apart(source)
    conditions = _parents_first(condition)
    try:
        shown = _values(rule, [part.text for part in conditions], lua, seen)
    except CompileError:
        return []
    lines: list[str] = []
    _show(condition, dict(zip((part.text for part in conditions), shown, strict=True)), 1, lines)
    return lines


def _values(rule: Rule, sources: Sequence[str], lua: LuaSupport, seen: _Seen) -> list[str]:
    """The values of expressions, as Lua's source, or their errors.

    Raises:
        CompileError: one is a body, or was not taken apart well.
    """
    event, profile, visit, rows, enrichment = seen
    clocks = Clocks((rule, text) for text in sources)
    # The brackets keep `f(x), y` from being two arguments of `type`.
    programs = [
        Program("filter", f"type(({text}\n)) .. ':' .. (tostring(({text}\n))):sub(1, 100)", True, clocks.place_of(rule))
        for text in sources
    ]
    engine = lua.engine(programs)
    times = clocks.at(event.timestamp_ms, profile)
    engine.set_inputs(event.fields, profile, filter_visit(visit, event), enrichment, times)
    outcomes = engine.run(range(len(programs)), columns_of(rows))
    engine.close()
    return [_shown_value(outcomes[number]) for number in range(len(programs))]


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
    lines.append(f"{'  ' * depth}{value:<6} {_cut(condition.text)}{f'   ({operands})' if operands else ''}")
    if condition.joined_by in ("and", "or", "not"):
        for part in condition.parts:
            _show(part, values, depth + 1, lines, reached)
            holds = values[part.text] not in ("false", "nil")
            reached = reached and holds is (condition.joined_by == "and")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
