"""Replays recorded events through the production state machine and counts what each rule does with them.

Time is the recording's time: everything that is due before a record (quiet hours end, sequences time out, users are
forgotten) happens first, each at its own time. The user API answers at once, and webhooks are delivered at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.rules.engine import EngineFactory
from transforms.domain.rules.model import Rule
from transforms.domain.shard.facts import EventObserved
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.shard.step_result import StepResult
from transforms.domain.simulation.simulator import Simulator
from transforms.domain.simulation.timelines import Timeline
from transforms.domain.users.fetched_user import FetchedUser

Fetch = Callable[[str], FetchedUser]
OnSent = Callable[[int, FiredAction], None]


@dataclass(slots=True)
class RuleReport:
    """What one rule did.

    Attributes:
        evaluated: events that the rule's Lua evaluated.
        counts: the rule's ``StepResult.rule_counts``.
        users: users who got an action.
        first_error: the message of the first rule error.
        open_at_end: sequences whose time was not over when the recording ended.
        held_at_end: actions that quiet hours still held when the recording ended.
        firings_every_ms: width of the buckets in ``firings``.
        firings: start (ms) and count of each bucket.
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
    """The result of a replay; times in ms since the epoch, None without records. ``counts`` are the job's metrics."""

    events: int
    users: int
    first_ms: int | None
    last_ms: int | None
    dead_letters: dict[str, int]
    counts: dict[str, int]
    rules: list[RuleReport]


@dataclass(frozen=True, slots=True)
class RuleDifference:
    """One rule in two rule sets; None where a set does not have the rule.

    ``users_gained`` counts the users who get an action only from the second set, ``users_lost`` only from the first.
    """

    rule: str
    before: RuleReport | None
    after: RuleReport | None
    users_gained: int
    users_lost: int


class Backtest:
    """One rule set over one recording: ``feed`` it the records in the order they came, then ``finish``.

    Memory holds what the job keeps of users that are not idle, and a number for each user ever seen.

    Args:
        rules: the rule set.
        settings: settings of the job.
        fetch: the user API's answer for a user.
        on_sent: called with the time (ms) and each action that goes out.
        isolation: where the Lua runs, as in ``FilterSet``.

    Raises:
        RuleError: Lua that does not compile.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        settings: ShardSettings,
        fetch: Fetch,
        lua: EngineFactory,
        on_sent: OnSent | None = None,
    ) -> None:
        self._rules = rules
        self._allowed_lateness_ms = settings.allowed_lateness_ms
        self._on_sent = on_sent
        self._simulator = Simulator(rules, settings, fetch, lua, self._count)
        self._first_ms: int | None = None
        self._last_ms: int | None = None
        self._evaluated = 0
        self._counts: Counter[str] = Counter()
        self._rule_counts: Counter[tuple[str, str]] = Counter()
        self._dead_letters: Counter[str] = Counter()
        self._first_errors: dict[str, str] = {}
        self._timelines = {rule.name: Timeline() for rule in rules}
        # For each user one bit a rule that reached them: a set for each rule would be many times as large.
        self._bits = {rule.name: 1 << number for number, rule in enumerate(rules)}
        self._reached: dict[str, int] = {}

    def feed(self, record: Record) -> None:
        """Replay one record of the events topic; a record that is older than the last one is handled now."""
        if self._first_ms is None:
            self._first_ms = record.timestamp_ms
        self._simulator.handle(record)
        self._last_ms = self._simulator.now_ms

    def finish(self) -> None:
        """Settle the sequences whose time was over when the recording ended; the others stay open."""
        self._simulator.advance(self._simulator.now_ms + self._allowed_lateness_ms)

    def close(self) -> None:
        """End the process that the rules run in, if they have one."""
        self._simulator.close()

    def _count(self, step_result: StepResult, sent: list[FiredAction]) -> None:
        now_ms = self._simulator.now_ms
        self._evaluated += step_result.evaluated_events
        for fact in step_result.facts:
            if isinstance(fact, EventObserved):
                self._reached.setdefault(fact.user_id, 0)
        self._counts.update(step_result.counts)
        for (rule, name), number in step_result.rule_counts.items():
            self._rule_counts[rule, name] += number
            if name == "fired":
                self._timelines[rule].add(now_ms, number)
        for letter in step_result.dead_letters:
            self._dead_letters[letter.reason] += 1
            if letter.reason == reasons.RULE_ERROR and letter.rule is not None:
                self._first_errors.setdefault(letter.rule, letter.detail)
        for action in sent:
            self._reached[action.user_id] |= self._bits[action.rule]
            if self._on_sent is not None:
                self._on_sent(now_ms, action)

    def report(self) -> Report:
        """Sum up the records so far."""
        open_sequences, held_actions = Counter[str](), Counter[str]()
        for rule_state in self._simulator.state.rule_states.values():
            open_sequences.update(opening.rule for opening in rule_state.open)
            held_actions.update(held.rule for held in rule_state.held)
        users_by_mask = Counter[int](self._reached.values())
        rules = []
        for rule in self._rules:
            timeline, bit = self._timelines[rule.name], self._bits[rule.name]
            counts = {count: number for (name, count), number in self._rule_counts.items() if name == rule.name}
            rules.append(
                RuleReport(
                    rule.name,
                    rule.version,
                    self._evaluated - counts.get("quarantined", 0),
                    counts,
                    sum(number for mask, number in users_by_mask.items() if mask & bit),
                    self._first_errors.get(rule.name),
                    open_sequences[rule.name],
                    held_actions[rule.name],
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
        """Compare with another rule set over the same records: this set's rules in their order, then the new ones."""
        before, after = ({rule.rule: rule for rule in backtest.report().rules} for backtest in (self, other))
        gained, lost = Counter[str](), Counter[str]()
        for user_id, mask in self._reached.items():
            other_mask = other._reached.get(user_id, 0)
            for name in before | after:
                reached = bool(mask & self._bits.get(name, 0)), bool(other_mask & other._bits.get(name, 0))
                gained[name] += reached == (False, True)
                lost[name] += reached == (True, False)
        return [
            RuleDifference(name, before.get(name), after.get(name), gained[name], lost[name]) for name in before | after
        ]
