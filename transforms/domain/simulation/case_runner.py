"""Runs rules' cases through the state machine of production (``shard.step``), at a clock of the case's own."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.micro_batch import EVENTS, VERSION, MicroBatch
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import action_id
from transforms.domain.rules.cases import Case, ExpectedAction
from transforms.domain.rules.files import LoadedRule, LocatedCase
from transforms.domain.rules.filters import FILTER, FilterSet
from transforms.domain.rules.model import Rule
from transforms.domain.shard.facts import UserLoaded
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step import step
from transforms.domain.shard.step_input import Answer, ShardSettings, StepContext, StepInput
from transforms.domain.shard.step_result import StepResult
from transforms.domain.simulation.simulator import delivered, destinations_of, sent_by
from transforms.domain.users.fetched_user import TIMEOUT, FetchedUser, unavailable
from transforms.domain.users.history import Row
from transforms.domain.users.user import FETCHED, PENDING
from transforms.domain.users.visit import Visit
from transforms.domain.webhooks.delivery_queue import DeliveryResult

_TOPIC: Final = "events"
_MINUTE_MS: Final = 60_000
_NO_ANSWER: Final = unavailable(TIMEOUT, "no answer")


@dataclass(frozen=True, slots=True)
class Fired:
    """An action that fired: its name, the number of its event (from 1) and its body."""

    action: str
    event: int
    body: dict[str, Any]


@dataclass(slots=True)
class CaseResult:
    """What a case came to. ``differences`` are lines for people, none if it is as expected."""

    rule: str
    located: LocatedCase
    differences: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether everything is as expected."""
        return not self.differences


def run_cases(loaded: LoadedRule, settings: ShardSettings) -> list[CaseResult]:
    """Every case of a rule, each with a user, a history and a clock of its own."""
    return [
        CaseResult(loaded.rule.name, located, _differences(CaseRun(loaded, located.case, settings), located.case))
        for located in loaded.cases
    ]


def dry_call(loaded: LoadedRule) -> str | None:
    """Run a rule once on an event that has nothing but what every event has; the error, if there is one."""
    case = Case.model_validate({"name": "dry call", "events": [{}], "expect": "nothing"})
    errors = CaseRun(loaded, case, ShardSettings()).errors
    return errors[0] if errors else None


class CaseRun:
    """One case, run: what fired, the messages of rule errors, and events that were refused.

    ``came_to`` is what became of the last event and of the time after it, by the names of ``StepResult.rule_counts``.
    """

    def __init__(
        self, loaded: LoadedRule, case: Case, settings: ShardSettings, filters: FilterSet | None = None
    ) -> None:
        self.fired: list[Fired] = []
        self.errors: list[str] = []
        self.refused: list[str] = []
        self.came_to: Counter[str] = Counter()
        self._number_of_events = len(case.events)
        self._loaded = loaded
        # Nothing is late here: what has not been given when a time ends does not come.
        self._settings = replace(settings, allowed_lateness_ms=0, destinations=destinations_of([loaded.rule]))
        self._filters = FilterSet((loaded.rule,)) if filters is None else filters
        self._view = ShardState(settings.history_size)
        self._numbers: dict[str, int] = {}  # of the event that an action is for, by the action's id
        self._problem = _unkept_fields(case, settings)
        if self._problem is not None:
            self.refused.append(self._problem)
            return
        # Of a user who is pending: since when the user API is asked. It fails at its deadline.
        self._asked_ms: dict[str, int] = {}
        self._known = None if case.profile == PENDING else _fetched(case)
        if (known := self._known) is not None:
            # Known from the start, so that the first event is a state hit; a user who expires midway is loaded again.
            self._view.apply(
                case.now, UserLoaded(case.user_id, known.enrichment, known.profile_json, known.visit, known.history)
            )
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
                made_of = (case.user_id, str(fields["event_id"]), rule.name, rule.version, action.name)
                self._numbers[action_id(*made_of)] = number
            # What ends at this very time has not ended before the event.
            self._pass_time(now_ms - 1, number - 1)
            record = Record(0, number, now_ms, case.user_id.encode(), orjson.dumps(fields))
            self._step(now_ms, MicroBatch(VERSION, EVENTS, _TOPIC, [record]), number)
        if case.wait is not None:
            self._pass_time(now_ms + case.wait.ms, len(case.events))

    def _pass_time(self, until_ms: int, number: int) -> None:
        """Let everything happen that is due until then, each at its time."""
        while True:
            due = [self._view.stream_due.next_ms(), self._view.clock_due.next_ms()]
            due += [asked_ms + self._settings.enrichment_deadline_ms for asked_ms in self._asked_ms.values()]
            due_ms = min((one for one in due if one is not None and one <= until_ms), default=None)
            if due_ms is None:
                return
            self._step(due_ms, None, number, due_ms)

    def _step(self, now_ms: int, batch: MicroBatch | None, number: int, stream_ms: int | None = None) -> None:
        late_ms = now_ms - self._settings.enrichment_deadline_ms
        late = [user_id for user_id, asked_ms in self._asked_ms.items() if asked_ms <= late_ms and batch is None]
        answers = [Answer(user_id, _NO_ANSWER) for user_id in late]
        for user_id in late:
            del self._asked_ms[user_id]
        tries: list[DeliveryResult] = []
        while batch is not None or stream_ms is not None or answers or tries:
            given = StepInput(now_ms, batch, answers, tries, self._asked_ms, stream_ms)
            done = step(self._view, StepContext(self._settings, self._filters), given)
            self._take(done, number)
            batch = stream_ms = None
            answers, tries = [], delivered(done, self._view)
            if self._known is None:
                self._asked_ms |= dict.fromkeys(done.users_to_fetch, now_ms)
            else:
                answers = [Answer(user_id, self._known) for user_id in done.users_to_fetch]

    def _take(self, done: StepResult, number: int) -> None:
        if number == self._number_of_events:
            for (_, what), count in done.rule_counts.items():
                self.came_to[what] += count
        for sent in sent_by(done, self._view):
            event = self._numbers.get(sent.action_id, number)
            self.fired.append(Fired(sent.action, event, orjson.loads(sent.body)))
        for letter in done.dead_letters:
            if letter.reason == reasons.RULE_ERROR:
                file, line, text = self._loaded.locate(self._field_of(letter.detail), letter.detail)
                self.errors.append(f"{file}:{line}: {text}")
            else:
                self.refused.append(f"event {number} is refused: {letter.reason}: {letter.detail}")

    def _field_of(self, message: str) -> str:
        """Which of the rule's Lua fields a message is about: it begins with the program's name."""
        name = message.partition(":")[0].removeprefix(f"{self._loaded.rule.name}.")
        return name if name in self._loaded.lua else FILTER


def _unkept_fields(case: Case, settings: ShardSettings) -> str | None:
    """A history that production would not have proves nothing."""
    kept = {"event_id", "event_name", "timestamp", *settings.history_fields}
    for past in case.history:
        for name in past.fields:
            if name not in kept:
                return f"history has the field {name!r}: the pipeline keeps it only with --history_fields={name}"
    return None


def _fetched(case: Case) -> FetchedUser:
    """What the user API says of the case's user."""
    visit = None
    if case.visit is not None:
        start_ms = case.visit.start_time if case.visit.start_time is not None else case.now - _MINUTE_MS
        visit = Visit(case.visit.visit_id, start_ms, case.visit.page_count, case.visit.is_first_visit)
    if isinstance(case.profile, dict):
        return FetchedUser(FETCHED, orjson.dumps(case.profile), visit, _rows(case))
    return FetchedUser(case.profile, b"{}", visit, _rows(case))


def _rows(case: Case) -> list[Row]:
    """The only place that makes rows."""
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
    return sorted(rows, key=lambda row: row.timestamp_ms)


def _differences(run: CaseRun, case: Case) -> list[str]:
    if run.refused:
        return run.refused
    wanted = case.expect.error
    if wanted is not None:
        if any(wanted in message for message in run.errors):
            return []
        return [f"expected the error {wanted!r}", *(run.errors or ["there was none"])]
    if run.errors:
        return [f"error at {message}" for message in run.errors]
    expected = list(case.expect.actions)
    lines = []
    if len(expected) != len(run.fired) or not all(map(_fits, expected, run.fired)):
        lines += [f"expected  {_listed([_expected_text(one) for one in expected])}"]
        lines += [f"but fired {_listed([f'{one.action} for event {one.event}' for one in run.fired])}"]
    for one, fired in zip(expected, run.fired, strict=False):
        lines += _body_differences(one, fired)
    return lines


def _fits(expected: ExpectedAction, fired: Fired) -> bool:
    return expected.action == fired.action and expected.event in (None, fired.event)


def _expected_text(one: ExpectedAction) -> str:
    return one.action if one.event is None else f"{one.action} for event {one.event}"


def _listed(texts: list[str]) -> str:
    return ", ".join(texts) if texts else "nothing"


def _body_differences(expected: ExpectedAction, fired: Fired) -> list[str]:
    """A diff of the expected part of the body and what is there in its place."""
    seen = _same_part(expected.body, fired.body)
    if seen == expected.body:
        return []
    wanted, got = (
        json.dumps(one, indent=2, sort_keys=True, ensure_ascii=False).splitlines() for one in (expected.body, seen)
    )
    diff = difflib.unified_diff(wanted, got, "expected", "fired", lineterm="", n=2)
    return [f"body of {fired.action} for event {fired.event}:", *diff]


def _same_part(expected: Any, value: Any) -> Any:
    """Of ``value`` only what ``expected`` speaks of."""
    if isinstance(expected, dict) and isinstance(value, dict):
        return {name: _same_part(inner, value[name]) for name, inner in expected.items() if name in value}
    return value


def untested(rules: list[LoadedRule]) -> list[Rule]:
    """The rules without a case."""
    return [loaded.rule for loaded in rules if not loaded.cases]
