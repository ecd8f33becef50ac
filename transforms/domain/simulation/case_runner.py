"""Runs the cases of rules through the production state machine, each at a clock of its own."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Final

from transforms.domain.base import exact_json
from transforms.domain.base.field_paths import selection
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction, action_id
from transforms.domain.rules.cases import LOST, Case, ExpectedAction
from transforms.domain.rules.engine import EngineFactory
from transforms.domain.rules.files import LoadedRule, LocatedCase
from transforms.domain.rules.history_fields import with_fields_of
from transforms.domain.rules.programs import FILTER
from transforms.domain.rules.suppressions import FOR_GOOD
from transforms.domain.shard.decisions import EXPIRED, Decision
from transforms.domain.shard.facts import SuppressionSet
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.shard.step_result import StepResult
from transforms.domain.simulation.simulator import OnEvaluation, Simulator
from transforms.domain.users.fetched_user import FetchedUser
from transforms.domain.users.history import Row, SortedRows, sort_rows
from transforms.domain.users.user import FETCHED, PENDING
from transforms.domain.users.visit import Visit

_MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Fired:
    """An action that fired: its name, the number of its event (from 1) and its body."""

    action: str
    event: int
    body: dict[str, Any]


@dataclass(slots=True)
class CaseResult:
    """The result of a case.

    Attributes:
        rule: its rule's name.
        located: the case.
        differences: lines for people, none if everything is as expected.
        event: number of the first event (from 1) for which the rule did not do what is expected.
    """

    rule: str
    located: LocatedCase
    differences: list[str] = field(default_factory=list)
    event: int = 0

    @property
    def passed(self) -> bool:
        """Whether everything is as expected."""
        return not self.differences


def run_cases(loaded: LoadedRule, settings: ShardSettings, lua: EngineFactory) -> list[CaseResult]:
    """Run every case of a rule, each with its own user, history and clock."""
    results = []
    for located in loaded.cases:
        run = CaseRun(loaded, located.case, settings, lua)
        differences = _differences(run, located.case)
        results.append(CaseResult(loaded.rule.name, located, differences, _first_difference(run, located.case)))
    return results


def dry_call(loaded: LoadedRule, lua: EngineFactory) -> str | None:
    """Run a rule on an event with only the required fields; return the message of its error, None without one."""
    case = Case.model_validate({"name": "dry call", "events": [{}], "expect": "nothing"})
    errors = CaseRun(loaded, case, ShardSettings(), lua).errors
    return errors[0] if errors else None


class CaseRun:
    """One case, run.

    Attributes:
        fired: the actions that fired, in their order.
        errors: messages of rule errors, each with file and line.
        lost: decisions about firings and actions of the rule that were not sent because of others, or too late.
        refused: why the case itself or one of its events cannot be used.
        last_event_counts: ``StepResult.rule_counts`` by name, of the last event and the time after it.
    """

    def __init__(
        self,
        loaded: LoadedRule,
        case: Case,
        settings: ShardSettings,
        lua: EngineFactory,
        on_evaluation: OnEvaluation | None = None,
    ) -> None:
        self.fired: list[Fired] = []
        self.errors: list[str] = []
        self.refused: list[str] = []
        self.lost: list[Decision] = []
        self.last_event_counts: Counter[str] = Counter()
        self._loaded = loaded
        self._number_of_events = len(case.events)
        self._number = 0  # of the event that was handled last
        self._numbers: dict[str, int] = {}  # the event's number by the id of each action that it may fire
        rules = (loaded.rule, *loaded.peers)
        fields = with_fields_of(settings.history_fields, rules)
        settings = replace(settings, history_fields=fields, decision_sample=0.0)
        problem = _unkept_fields(case, settings)
        if problem is not None:
            self.refused.append(problem)
            return
        self._lateness_ms = settings.allowed_lateness_ms
        fetched = None if case.profile == PENDING else _fetched(case)
        self._simulator = Simulator(rules, settings, lambda _: fetched, lua, self._collect, case.now, on_evaluation)
        for group in case.suppressed:
            self._simulator.state.apply(case.now, SuppressionSet(case.user_id, group, FOR_GOOD))
        if fetched is not None:
            # The first event is a state hit; a user who expires midway is fetched again.
            self._simulator.load_user(case.user_id, fetched)
        self._play(case)

    def _play(self, case: Case) -> None:
        now_ms = case.now
        for number, given in enumerate(case.events, 1):
            now_ms += given.after.ms if given.after is not None else 0
            fields = {
                "event_id": f"event-{number}",
                "user_id": case.user_id,
                "event_name": "event",
                "timestamp": now_ms,
            } | given.fields
            rule = self._loaded.rule
            for action in rule.actions:
                identity = action_id(case.user_id, str(fields["event_id"]), rule.name, rule.version, action.name)
                self._numbers[identity] = number
            self._simulator.advance(now_ms - 1)
            self._number = number
            self._simulator.handle(Record(0, number, now_ms, case.user_id.encode(), exact_json.dumps(fields)))
        if case.wait is not None:
            # What has to come within this time has come, however late it may be.
            self._simulator.advance(now_ms + case.wait.ms + self._lateness_ms)

    def _collect(self, step_result: StepResult, sent: list[FiredAction]) -> None:
        own = self._loaded.rule.name
        if self._number == self._number_of_events:
            for (rule, name), count in step_result.rule_counts.items():
                self.last_event_counts[name] += count if rule == own else 0
        self.lost += [each for each in step_result.decisions if each.rule == own and _is_lost(each)]
        for fired in (fired for fired in sent if fired.rule == own):
            event = self._numbers.get(fired.action_id, self._number)
            self.fired.append(Fired(fired.action.name, event, json.loads(fired.body)))
        for letter in step_result.dead_letters:
            if letter.rule not in (None, own):
                continue
            if letter.reason == reasons.RULE_ERROR:
                name = self._field_of(letter.detail)
                file, line, text = self._loaded.locate(name, letter.detail)
                self.errors.append(f"{file}:{line}: {'' if name == FILTER else f'{name}: '}{text}")
            else:
                self.refused.append(f"event {self._number} is refused: {letter.reason}: {letter.detail}")

    @property
    def action_names(self) -> list[str]:
        """The names of the rule's actions."""
        return [action.name for action in self._loaded.rule.actions]

    def _field_of(self, message: str) -> str:
        """Return the Lua field that a message is about; messages begin with the program's name."""
        name = message.partition(":")[0].removeprefix(f"{self._loaded.rule.name}.")
        return name if name in self._loaded.lua else FILTER


def _unkept_fields(case: Case, settings: ShardSettings) -> str | None:
    """Return the problem of a case whose history has fields that production would not keep."""
    kept = selection(("event_id", "event_name", "timestamp", *settings.history_fields))
    for past in case.history:
        name = _first_missing(past.fields, kept.of(past.fields))
        if name is not None:
            return f"history has the field {name!r}: the pipeline keeps it only with --history_fields={name}"
    return None


def _first_missing(fields: dict[str, Any], kept: dict[str, Any]) -> str | None:
    """Return the path of the first field, or part of a field, that is not kept; None if all are."""
    for name, value in fields.items():
        if name not in kept:
            return name
        if kept[name] is not value and (inner := _first_missing(value, kept[name])) is not None:
            return f"{name}.{inner}"
    return None


def _fetched(case: Case) -> FetchedUser:
    """Return the user API's answer for the case's user."""
    visit = None
    if case.visit is not None:
        start_ms = case.visit.start_time if case.visit.start_time is not None else case.now - _MINUTE_MS
        visit = Visit(case.visit.visit_id, start_ms, case.visit.page_count, case.visit.is_first_visit)
    if isinstance(case.profile, dict):
        return FetchedUser(FETCHED, exact_json.dumps(case.profile), visit, _history(case))
    return FetchedUser(case.profile, b"{}", visit, _history(case))


def _history(case: Case) -> SortedRows:
    """Return the past events of the case's user."""
    rows: list[Row] = []
    for number, past in enumerate(case.history):
        back_ms = past.ago.ms if past.ago is not None else 1000 * (len(case.history) - number)
        fields: dict[str, Any] = {
            "event_id": f"past-{number + 1}",
            "event_name": "event",
            "timestamp": case.now - back_ms,
        } | past.fields
        timestamp, event_id, event_name = (fields.pop(name) for name in ("timestamp", "event_id", "event_name"))
        rows.append(Row(timestamp, event_id, event_name, fields or None, from_api=True))
    return sort_rows(rows)


def _differences(run: CaseRun, case: Case) -> list[str]:
    if run.refused:
        return run.refused
    expected_error = case.expect.error
    if expected_error is not None:
        if any(expected_error in message for message in run.errors):
            return []
        return [f"expected the error {expected_error!r}", *(run.errors or ["there was none"])]
    if run.errors:
        return [f"error at {message}" for message in run.errors]
    expected = list(case.expect.actions)
    lines = _lost_differences(run, case)
    if len(expected) != len(run.fired) or not all(map(_fits, expected, run.fired)):
        lines += [f"expected  {_listed([_expected_text(action) for action in expected])}"]
        lines += [f"but fired {_listed([f'{fired.action} for event {fired.event}' for fired in run.fired])}"]
    for action, fired in zip(expected, run.fired, strict=False):
        lines += _body_differences(action, fired)
    return lines


def _is_lost(decision: Decision) -> bool:
    # A sequence that nothing followed in time is no action that expired.
    return decision.decision in LOST and (decision.decision != EXPIRED or decision.action is not None)


def _lost_differences(run: CaseRun, case: Case) -> list[str]:
    """What was not sent, if a case expects something of it: each text fits a decision, and each decision a text."""
    expected, open_ = case.expect.lost, list(run.lost)
    missing = []
    for kind, text in expected:
        found = next((each for each in open_ if each.decision == kind and _says(run, each, text)), None)
        if found is None:
            missing.append(f"{kind}: {text}")
        else:
            open_.remove(found)
    if not missing and not (expected and open_):
        return []
    listed = [f"{each.decision}: {each.detail}" for each in run.lost]
    return [f"expected  {_listed([f'{kind}: {text}' for kind, text in expected])}", f"but not sent  {_listed(listed)}"]


def _says(run: CaseRun, decision: Decision, text: str) -> bool:
    actions = [decision.action] if decision.action is not None else run.action_names
    return text in (*actions, decision.group, decision.winner) or text in (decision.detail or "")


def _first_difference(run: CaseRun, case: Case) -> int:
    """The number of the first event for which more or less fired than expected, of the last if none is named."""
    wanted = [(action.action, action.event) for action in case.expect.actions]
    fired = [(action.action, action.event) for action in run.fired]
    unexpected = [event for action, event in fired if (action, event) not in wanted and (action, None) not in wanted]
    missing = [event for action, event in wanted if event is not None and (action, event) not in fired]
    return min([*unexpected, *(number for number in missing if number <= len(case.events)), len(case.events)])


def _fits(expected: ExpectedAction, fired: Fired) -> bool:
    return expected.action == fired.action and expected.event in (None, fired.event)


def _expected_text(expected: ExpectedAction) -> str:
    return expected.action if expected.event is None else f"{expected.action} for event {expected.event}"


def _listed(texts: list[str]) -> str:
    return ", ".join(texts) if texts else "nothing"


def _body_differences(expected: ExpectedAction, fired: Fired) -> list[str]:
    """Return a diff of the expected body and the same part of the fired body, nothing if they are equal."""
    actual = _same_part(expected.body, fired.body)
    if actual == expected.body:
        return []
    expected_lines, actual_lines = (
        json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False).splitlines() for body in (expected.body, actual)
    )
    diff = difflib.unified_diff(expected_lines, actual_lines, "expected", "fired", lineterm="", n=2)
    return [f"body of {fired.action} for event {fired.event}:", *diff]


def _same_part(expected: Any, value: Any) -> Any:
    """Return the part of ``value`` whose names are in ``expected``."""
    if isinstance(expected, dict) and isinstance(value, dict):
        return {name: _same_part(inner, value[name]) for name, inner in expected.items() if name in value}
    return value
