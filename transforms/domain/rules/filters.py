"""A rule set's Lua: which rules allow an event, which fail, and what the values of cooldowns' keys are.

Lua gets only what some rule names: fields of the event, the profile and the visit. The history is handed over only when
a program reaches for it; then that program runs again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from transforms.domain.events.event import Event, KnownFields
from transforms.domain.rules import engine
from transforms.domain.rules.begun_conditions import BegunConditions, Met
from transforms.domain.rules.clocks import Clocks
from transforms.domain.rules.engine import Columns, OutcomeKind, Outcomes
from transforms.domain.rules.groups import groups_of, unless_holds, unless_programs
from transforms.domain.rules.guards import compile_guards, guard_of
from transforms.domain.rules.history_fields import with_fields_of
from transforms.domain.rules.model import SKIP, WAIT, Rule, RuleError
from transforms.domain.rules.programs import COOLDOWN_KEY, FILTER, RECHECK, SEQUENCE, programs_of, step_of
from transforms.domain.rules.quarantine import Quarantine
from transforms.domain.rules.state import NOTHING, OpenSequence, RuleState
from transforms.domain.users.history import Row
from transforms.domain.users.user import ProfileFields, UserState
from transforms.domain.users.visit import Visit, filter_visit


@dataclass(frozen=True, slots=True)
class FilterResult:
    """What a rule set's Lua came to for one event.

    Attributes:
        allowed: the rules whose filter allows the event.
        errors: rule and message for each rule whose Lua failed.
        tripped: the rules among those that hit a limit.
        quarantined: the rules that did not run.
        followed: the rules whose sequence's conditions the event meets, by name, with the numbers of these steps.
        keys: the values of the cooldown keys of allowed rules, by rule name.
        met: the open sequences whose conditions the event meets, of conditions that read ``begun``.
    """

    allowed: tuple[Rule, ...] = ()
    errors: tuple[tuple[Rule, str], ...] = ()
    tripped: tuple[Rule, ...] = ()
    quarantined: tuple[Rule, ...] = ()
    followed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    met: frozenset[Met] = frozenset()


NO_RULE: Final = FilterResult()  # of most events: nothing more is to be done about the rules


@dataclass(frozen=True, slots=True)
class _RuleProgram:
    rule: Rule
    field: str
    source: str

    @property
    def name(self) -> str:
        # Lua's messages begin with this name: rule tests find the field by it.
        return self.rule.name if self.field == FILTER else f"{self.rule.name}.{self.field}"

    @property
    def is_for_every_event(self) -> bool:
        return self.field not in (COOLDOWN_KEY, RECHECK)

    @property
    def step(self) -> int | None:
        return step_of(self.field) if self.field.startswith(SEQUENCE) else None

    def for_engine(self, clock: int) -> engine.Program:
        return engine.Program(self.name, self.source, self.field == COOLDOWN_KEY, clock)

    def named(self, message: str) -> str:
        """A message of an error that names the field, if it is not the filter; limits and bad values have no line."""
        is_named = self.field == FILTER or message.startswith(f"{self.name}:")
        return message if is_named else f"{self.name}:1: {message}"


class FilterSet:
    """The Lua of a rule set, compiled once. Not thread-safe: each DoFn instance has its own.

    Args:
        rules: the rule set.
        lua: makes the engine that runs the rules' Lua.
        clock_ms: a clock for the quarantine, ms; it need not be the time of day.
        quarantine: sets aside rules that keep hitting their limits or take too much time; the filter sets of a worker
            share it. Without it, this one has a quarantine of its own.

    Raises:
        RuleError: Lua that does not compile; the message has the rule's name and Lua's line.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        lua: engine.EngineFactory,
        clock_ms: Callable[[], int],
        quarantine: Quarantine | None = None,
    ) -> None:
        self.rules = rules
        self.by_name = {rule.name: rule for rule in rules}
        # Whether an event waits for its user's profile, and how many rules pass it over if it does not.
        self.waits = any(rule.on_missing_profile == WAIT for rule in rules)
        self.skipping = sum(rule.on_missing_profile == SKIP for rule in rules)
        self.history_fields = with_fields_of((), rules)
        self._quarantine = Quarantine() if quarantine is None else quarantine
        self._clock_ms = clock_ms
        self._uncounted = 0
        self._programs = [_RuleProgram(rule, *program) for rule in rules for program in programs_of(rule)]
        # The programs of cooldown keys, by rule name. They run only for rules that allow the event.
        self._key_programs = {
            program.rule.name: number for number, program in enumerate(self._programs) if program.field == COOLDOWN_KEY
        }
        self._clocks = Clocks((program.rule, program.source) for program in self._programs)
        self.groups = groups_of(rules)
        unless = unless_programs(self.groups)
        # They want a value, so that no event runs them.
        self._unless = {name: number for number, name in enumerate(unless, len(self._programs))}
        programs = [program.for_engine(self._clocks.place_of(program.rule)) for program in self._programs]
        try:
            self._engine = lua.engine([*programs, *unless.values()])
        except engine.CompileError as error:
            if error.number >= len(programs):
                raise RuleError(f"group {list(unless)[error.number - len(programs)]!r}: unless: {error}") from None
            bad = self._programs[error.number]
            raise RuleError(f"rule {bad.rule.name!r}: {bad.field} does not compile: {error}") from None
        reads = self._engine.reads
        self._reads_visit = reads["visit"] != []
        profile_names = None if reads["user"] is None else [*reads["user"], *self._clocks.profile_fields]
        self._user_fields = None if profile_names is None else _profile_fields(tuple(dict.fromkeys(profile_names)))
        self._event_fields = _known_only(reads["event"])
        knows_profile = self._user_fields is not None
        self._rechecks = {
            program.rule.name: number for number, program in enumerate(self._programs) if program.field == RECHECK
        }
        conditions = [
            (number, program.source) for number, program in enumerate(self._programs) if program.is_for_every_event
        ]
        self._begun = BegunConditions(
            {
                number: (program.rule, program.step)
                for number, program in enumerate(self._programs)
                if program.rule.sequence and program.step in program.rule.sequence.begun_readers
            }
        )
        self.reads_begun = bool(self._begun.numbers)
        # None stands for every condition, and what runs apart from the others is none of them.
        self._conditions = [number for number, _ in conditions] if self._rechecks or self.reads_begun else None
        self._choose = compile_guards([(number, guard_of(source, knows_profile)) for number, source in conditions])

    def evaluate(
        self, event: Event, visit: Visit | None, user: UserState, rule_state: RuleState = NOTHING
    ) -> FilterResult:
        """Run every rule's Lua on one event. A rule that fails changes nothing for the others.

        ``rule_state`` is the user's; it matters only for sets with ``reads_begun``.
        """
        met: frozenset[Met] = frozenset()
        questions: list[tuple[int, OpenSequence]] = []
        quarantined: tuple[Rule, ...] = ()
        selected = self._conditions
        self._uncounted += 1
        if self._uncounted == 256:  # the clock costs more than the count
            self._count_evaluations()
        try:
            profile = {} if self._user_fields is None else user.profile_fields(self._user_fields)
            if self._choose is not None:
                selected = self._choose(event.known, profile)
            if self._quarantine.records:  # not its truth, which would be a call for every event
                quarantined = self._quarantined(event.user_id)
                if quarantined:
                    selected = self._without({rule.name for rule in quarantined}, selected)
            if self.reads_begun and selected:
                questions = self._begun.questions(event, selected, rule_state)
                selected = [number for number in selected if number not in self._begun.numbers]
            if selected is not None and not selected and not questions:
                return FilterResult(quarantined=quarantined) if quarantined else NO_RULE
            names = self._event_fields
            profile = user.profile() if self._user_fields is None else profile
            inputs = (
                event.fields if names is None else {name: getattr(event.known, name) for name in names},
                profile,
                filter_visit(visit, event) if self._reads_visit else {},
                user.enrichment,
                self._clocks.at(event.timestamp_ms, profile) if self._clocks.are_read else (),
            )
            self._engine.set_inputs(*inputs)
            outcomes = self._engine.run(selected, None)
            if outcomes:
                outcomes = self._completed(outcomes, user)
            if questions:
                answers, met = self._begun.ask(
                    self._engine, questions, inputs, lambda: Columns(*user.history.columns())
                )
                outcomes = {**outcomes, **answers}
        except engine.EngineError as error:
            return FilterResult(errors=tuple((rule, str(error)) for rule in self.rules))
        if not outcomes and not quarantined:
            return NO_RULE
        return self._result(outcomes, quarantined, event.user_id, met)

    def leaves_out(self, group: str, user: UserState) -> tuple[bool, str | None]:
        """Whether a group's ``unless`` holds for a user, and the message of its error."""
        number = self._unless.get(group)
        if number is None:
            return False, None
        try:
            self._engine.set_inputs({}, user.profile(), {}, user.enrichment, ())
            return unless_holds(self._engine.run([number], None).get(number))
        except engine.EngineError as error:
            return False, str(error)

    def asks_profile(self, group: str | None) -> bool:
        """Whether a group has an ``unless``, which looks at the profile."""
        return group in self._unless

    def recheck(self, rule: Rule, event: dict[str, Any], user: UserState, at_ms: int) -> engine.Outcome:
        """Run a rule's ``recheck`` for the event of a firing, with the user as known at ``at_ms``."""
        number, profile = self._rechecks[rule.name], user.profile()
        visit = (user.visit or Visit("", at_ms, 0, False)).public()
        clocks = self._clocks.at(at_ms, profile) if self._clocks.are_read else ()
        try:
            self._engine.set_inputs(event, profile, visit, user.enrichment, clocks)
            outcomes = self._engine.run([number], Columns(*user.history.columns()))
        except engine.EngineError as error:
            return engine.Outcome(OutcomeKind.ERROR, str(error))
        outcome = outcomes.get(number, engine.Outcome(OutcomeKind.NOT_ALLOWED))
        if outcome.kind is OutcomeKind.LIMIT:
            self._quarantine.trip(_quarantine_key(rule), str(event["user_id"]), self._clock_ms())
        return msgspec.structs.replace(outcome, text=self._programs[number].named(outcome.text))

    def _count_evaluations(self) -> None:
        self._quarantine.evaluated(self._uncounted, self._clock_ms())
        self._uncounted = 0

    def _quarantined(self, user_id: str) -> tuple[Rule, ...]:
        now_ms = self._clock_ms()
        allows = self._quarantine.allows
        return tuple(rule for rule in self.rules if not allows(_quarantine_key(rule), user_id, now_ms))

    def _without(self, rule_names: set[str], selected: list[int] | None) -> list[int]:
        """The selected conditions (None: all) that are not of these rules."""
        numbers = range(len(self._programs)) if selected is None else selected
        programs = ((number, self._programs[number]) for number in numbers)
        return [
            number for number, program in programs if program.is_for_every_event and program.rule.name not in rule_names
        ]

    def _completed(self, outcomes: Outcomes, user: UserState) -> Outcomes:
        """The outcomes once programs that need the history have run again, and cooldown keys of allowed rules, too."""
        history: Columns | None = None
        again = [number for number, outcome in outcomes.items() if outcome.kind is OutcomeKind.NEEDS_HISTORY]
        if again:
            history = Columns(*user.history.columns())
            completed = dict(self._engine.run(again, history))
            for number in again:
                if outcomes[number].ms:
                    done = completed.get(number, engine.Outcome(OutcomeKind.NOT_ALLOWED))
                    completed[number] = engine.Outcome(done.kind, done.text, done.ms + outcomes[number].ms)
            rest = {number: done for number, done in outcomes.items() if done.kind is not OutcomeKind.NEEDS_HISTORY}
            outcomes = {**rest, **completed}
        if self._key_programs:
            allowed = (self._programs[number] for number, done in outcomes.items() if done.kind is OutcomeKind.ALLOWED)
            names = [program.rule.name for program in allowed if program.field == FILTER]
            keys = [self._key_programs[name] for name in names if name in self._key_programs]
            if keys:
                outcomes = {**outcomes, **self._engine.run(keys, history or Columns(*user.history.columns()))}
        return outcomes

    def _result(
        self, outcomes: Outcomes, quarantined: tuple[Rule, ...], user_id: str, met: frozenset[Met]
    ) -> FilterResult:
        allowed: dict[str, Rule] = {}
        followed: dict[str, tuple[int, ...]] = {}
        tripped: dict[str, Rule] = {}
        errors: dict[str, tuple[Rule, str]] = {}
        keys: dict[str, str] = {}
        spent: dict[str, float] = {}
        for number in sorted(outcomes):
            program, outcome = self._programs[number], outcomes[number]
            rule = program.rule
            if outcome.ms:
                spent[rule.name] = spent.get(rule.name, 0.0) + outcome.ms
            if outcome.kind is OutcomeKind.ALLOWED and program.field == FILTER:
                allowed[rule.name] = rule
            elif outcome.kind is OutcomeKind.ALLOWED:
                followed[rule.name] = (*followed.get(rule.name, ()), step_of(program.field))
            elif outcome.kind is OutcomeKind.VALUE:
                keys[rule.name] = outcome.text
            elif outcome.kind is not OutcomeKind.NOT_ALLOWED:
                errors.setdefault(rule.name, (rule, program.named(outcome.text)))
                if outcome.kind is OutcomeKind.LIMIT:
                    tripped[rule.name] = rule
        if tripped:
            self._count_evaluations()
        for rule in tripped.values():
            self._quarantine.trip(_quarantine_key(rule), user_id, self._clock_ms())
        # Without its key a rule's cooldown cannot be looked up: the rule fails as a whole.
        fires = tuple(rule for name, rule in allowed.items() if name not in errors)
        follows = {name: steps for name, steps in followed.items() if name not in errors}
        if spent:
            for rule in self._over_their_share(spent, user_id):
                # What this event came to counts; the rule does not run on the next ones.
                errors.setdefault(rule.name, (rule, f"over budget: {self._quarantine.share_text}: it is set aside"))
                tripped.setdefault(rule.name, rule)
        return FilterResult(fires, tuple(errors.values()), tuple(tripped.values()), quarantined, follows, keys, met)

    def _over_their_share(self, spent: dict[str, float], user_id: str) -> list[Rule]:
        """The rules that are set aside because of their time; ``spent`` is what they took now, in ms."""
        now_ms = self._clock_ms()
        rules = [self.by_name[name] for name in spent]
        return [
            rule for rule in rules if self._quarantine.spent(_quarantine_key(rule), user_id, spent[rule.name], now_ms)
        ]

    def close(self) -> None:
        """Free what the engine holds outside this process, see ``Engine``."""
        self._engine.close()


def _quarantine_key(rule: Rule) -> str:
    """A higher version of a rule is another one: it may have been repaired."""
    return f"{rule.name} {rule.version}"


def columns_of(rows: list[Row]) -> Columns:
    """A history as engines take it; the only place here that looks into rows."""
    extras = [row.extra for row in rows]
    return Columns(
        [row.timestamp_ms for row in rows],
        [row.event_id for row in rows],
        [row.event_name for row in rows],
        [extra or {} for extra in extras] if any(extras) else None,
    )


def _known_only(names: list[str] | None) -> list[str] | None:
    """The fields of the event that rules read, if all are the schema's; None: the whole event has to be decoded."""
    known = set(KnownFields.__struct_fields__) - {"parameters"}  # of which numbers may be beyond 64 bits
    return names if names is not None and known.issuperset(names) else None


@functools.lru_cache(maxsize=100)
def _profile_fields(names: tuple[str, ...]) -> ProfileFields:
    """One object for all DoFn instances: a user keeps parsed fields of its profile by the identity of this object."""
    return ProfileFields(names)
