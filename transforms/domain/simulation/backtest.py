"""Replays recorded events through the state machine of production, and counts what each rule does with them.

Time is the recording's: before each record everything happens that is due by then (quiet hours end, sequences run out,
users are forgotten), each at its time. The user API's answer is there at once, and webhooks arrive at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.event import Event
from transforms.domain.events.micro_batch import EVENTS, VERSION, MicroBatch
from transforms.domain.events.record import Record
from transforms.domain.rules.filters import FilterSet, Isolation, Verdict
from transforms.domain.rules.model import Rule
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step import step
from transforms.domain.shard.step_input import Answer, ShardSettings, StepContext, StepInput
from transforms.domain.shard.step_result import StepResult
from transforms.domain.simulation.simulator import SentAction, delivered, destinations_of, sent_by
from transforms.domain.simulation.timelines import Timeline
from transforms.domain.users.fetched_user import FetchedUser
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit
from transforms.domain.webhooks.delivery_queue import DeliveryResult

_TOPIC: Final = "recording"

Fetch = Callable[[str], FetchedUser]
Sent = Callable[[int, SentAction], None]


@dataclass(slots=True)
class RuleReport:
    """What a rule did. ``counts`` are its ``StepResult.rule_counts``; ``users`` got an action.

    ``evaluated`` counts the events that its Lua was asked about. ``open_at_end`` are sequences whose time was not over
    when the recording ended, ``held_at_end`` actions that quiet hours still held. ``firings`` are start (ms) and count
    of buckets of ``firings_every_ms``.
    """

    rule: str
    version: int
    evaluated: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    users: int = 0
    first_error: str | None = None
    open_at_end: int = 0
    held_at_end: int = 0
    firings_every_ms: int = 0
    firings: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What a replay came to; times in ms since the epoch, None without records. ``counts`` are the job's metrics."""

    events: int
    users: int
    first_ms: int | None
    last_ms: int | None
    dead_letters: dict[str, int]
    counts: dict[str, int]
    rules: list[RuleReport]


@dataclass(frozen=True, slots=True)
class RuleDifference:
    """What another rule set makes of one rule; None where a set does not have it.

    ``users_gained`` are those for whom actions go out only in the second set, ``users_lost`` only in the first.
    """

    rule: str
    before: RuleReport | None
    after: RuleReport | None
    users_gained: int
    users_lost: int


class Backtest:
    """One rule set over one recording: ``feed`` it the records in the order they came, then ``finish``.

    ``sent`` is told each action that goes out, and when (ms). What is kept is what the job keeps of users that are not
    idle, and a number for each user ever seen.

    Raises:
        RuleError: Lua that does not compile.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        settings: ShardSettings,
        fetch: Fetch,
        sent: Sent | None = None,
        isolation: Isolation = "none",
    ) -> None:
        self._settings = replace(settings, destinations=destinations_of(rules))
        self._fetch = fetch
        self._sent = sent
        self._view = ShardState(settings.history_size)
        self._filters = _Watched(rules, lambda: self._now_ms, isolation)
        self._now_ms = 0
        self._first_ms: int | None = None
        self._last_ms: int | None = None
        self._counts: Counter[str] = Counter()
        self._rule_counts: Counter[tuple[str, str]] = Counter()
        self._dead_letters: Counter[str] = Counter()
        self._first_errors: dict[str, str] = {}
        self._timelines = {rule.name: Timeline() for rule in rules}
        # Of each user a bit for every rule that reached them: a set for each rule would be many times as large.
        self._bits = {rule.name: 1 << number for number, rule in enumerate(rules)}
        self._reached: dict[str, int] = self._filters.users

    def feed(self, record: Record) -> None:
        """One record of the events topic; one that came before the last, by its time, comes now."""
        at_ms = record.timestamp_ms
        if self._first_ms is None:
            self._first_ms = at_ms
        self._pass_time(at_ms - 1)
        self._now_ms = max(self._now_ms, at_ms)
        self._last_ms = self._now_ms
        self._step(batch=MicroBatch(VERSION, EVENTS, _TOPIC, [record]))

    def finish(self) -> None:
        """Settle the sequences whose time was over when the recording ended. What followed it nobody knows."""
        self._pass_time(self._now_ms + self._settings.allowed_lateness_ms)

    def close(self) -> None:
        """End the process that the rules run in, if they do."""
        self._filters.close()

    def _pass_time(self, until_ms: int) -> None:
        view = self._view
        while True:
            due = [view.stream_due.next_ms(), view.clock_due.next_ms()]
            due_ms = min((one for one in due if one is not None and one <= until_ms), default=None)
            if due_ms is None:
                return
            self._now_ms = max(self._now_ms, due_ms)
            self._step(stream_ms=due_ms)

    def _step(self, batch: MicroBatch | None = None, stream_ms: int | None = None) -> None:
        answers: list[Answer] = []
        tries: list[DeliveryResult] = []
        while batch is not None or stream_ms is not None or answers or tries:
            given = StepInput(self._now_ms, batch, answers, tries, {}, stream_ms)
            done = step(self._view, StepContext(self._settings, self._filters), given)
            self._take(done)
            batch = stream_ms = None
            answers = [Answer(user_id, self._fetch(user_id)) for user_id in done.users_to_fetch]
            tries = delivered(done, self._view)

    def _take(self, done: StepResult) -> None:
        for name, number in done.counts.items():
            self._counts[name] += number
        for of_rule, number in done.rule_counts.items():
            self._rule_counts[of_rule] += number
            if of_rule[1] == "fired":
                self._timelines[of_rule[0]].add(self._now_ms, number)
        for letter in done.dead_letters:
            self._dead_letters[letter.reason] += 1
            if letter.reason == reasons.RULE_ERROR and letter.rule is not None:
                self._first_errors.setdefault(letter.rule, letter.detail)
        for action in sent_by(done, self._view):
            self._reached[action.user_id] |= self._bits[action.rule]
            if self._sent is not None:
                self._sent(self._now_ms, action)

    def report(self) -> Report:
        """What has come of the records so far."""
        open_, held = Counter[str](), Counter[str]()
        for state in self._view.rule_states.values():
            open_.update(one.rule for one in state.open)
            held.update(one.rule for one in state.held)
        users = Counter[int](self._reached.values())
        rules = []
        for rule in self._filters.rules:
            timeline, bit = self._timelines[rule.name], self._bits[rule.name]
            rules.append(
                RuleReport(
                    rule.name,
                    rule.version,
                    self._filters.asked - self._filters.set_aside[rule.name],
                    {what: number for (name, what), number in self._rule_counts.items() if name == rule.name},
                    sum(number for mask, number in users.items() if mask & bit),
                    self._first_errors.get(rule.name),
                    open_[rule.name],
                    held[rule.name],
                    timeline.width_ms,
                    timeline.buckets(),
                )
            )
        return Report(
            self._counts["events"],
            len(self._reached),
            self._first_ms,
            self._last_ms,
            dict(self._dead_letters.most_common()),
            dict(self._counts),
            rules,
        )

    def differences(self, other: Backtest) -> list[RuleDifference]:
        """What another rule set made of the same records, rule by rule: this one's in its order, then the new ones."""
        before, after = ({one.rule: one for one in backtest.report().rules} for backtest in (self, other))
        gained, lost = Counter[str](), Counter[str]()
        for user_id, mask in self._reached.items():
            other_mask = other._reached.get(user_id, 0)
            for name in before | after:
                was, is_ = bool(mask & self._bits.get(name, 0)), bool(other_mask & other._bits.get(name, 0))
                gained[name] += is_ and not was
                lost[name] += was and not is_
        return [
            RuleDifference(name, before.get(name), after.get(name), gained[name], lost[name]) for name in before | after
        ]


class _Watched(FilterSet):
    """Notes who had an event, and how often which rule was asked."""

    def __init__(self, rules: tuple[Rule, ...], clock_ms: Callable[[], int], isolation: Isolation) -> None:
        super().__init__(rules, clock_ms=clock_ms, isolation=isolation)
        self.users: dict[str, int] = {}
        self.asked = 0
        self.set_aside: Counter[str] = Counter()

    def evaluate(self, event: Event, visit: Visit, user: UserState) -> Verdict:
        self.users.setdefault(event.user_id, 0)
        self.asked += 1
        verdict = super().evaluate(event, visit, user)
        for rule in verdict.quarantined:
            self.set_aside[rule.name] += 1
        return verdict
