"""Rules' Lua, run by LuaJIT through lupa where it can reach nothing but the event and its user.

The sandbox is ``adapters/lua/sandbox.lua``. What the Lua is given is built once an event, and only what some rule
names: fields of the event, the profile and the visit, and the history only when a filter really reaches for it (then
that filter is asked again).
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from transforms.adapters.lua.sandbox import Columns, CompileError, Engine, Sandbox, SandboxError, compile_alone
from transforms.adapters.lua.sandbox_process import SandboxProcess
from transforms.domain.events.event import Event
from transforms.domain.rules.model import SKIP, WAIT, Rule, RuleError
from transforms.domain.rules.quarantine import Quarantine
from transforms.domain.users.history import Row
from transforms.domain.users.user import ProfileFields, UserState
from transforms.domain.users.visit import Visit

FILTER: Final = "filter"
COOLDOWN_KEY: Final = "cooldown.key"
FOLLOWED_BY: Final = "sequence.followed_by"
NOT_FOLLOWED_BY: Final = "sequence.not_followed_by"

Isolation = Literal["none", "process"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules' Lua said of one event.

    ``allowed`` are the rules whose filter allows it, ``errors`` are (rule, message) of Lua that failed. ``tripped`` are
    the rules among those that hit a limit, ``quarantined`` the ones that were not asked. ``followed`` are the rules
    whose sequence's Lua allows it, ``keys`` the values of cooldowns' keys of allowed rules, by rule name.
    """

    allowed: tuple[Rule, ...] = ()
    errors: tuple[tuple[Rule, str], ...] = ()
    tripped: tuple[Rule, ...] = ()
    quarantined: tuple[Rule, ...] = ()
    followed: tuple[Rule, ...] = ()
    keys: dict[str, str] = field(default_factory=dict)


_NO_RULE: Final = Verdict()


@dataclass(frozen=True, slots=True)
class _Program:
    rule: Rule
    field: str
    source: str

    @property
    def name(self) -> str:
        """What Lua's messages call it."""
        return self.rule.name if self.field == FILTER else f"{self.rule.name}.{self.field}"


def programs_of(rule: Rule) -> list[tuple[str, str]]:
    """Field and source of each of a rule's Lua texts, the filter first."""
    cooldown, sequence = rule.cooldown, rule.sequence
    texts = [
        (FILTER, rule.filter),
        (FOLLOWED_BY, sequence and sequence.followed_by),
        (NOT_FOLLOWED_BY, sequence and sequence.not_followed_by),
        (COOLDOWN_KEY, cooldown and cooldown.key),
    ]
    return [(name, text) for name, text in texts if text]


class FilterSet:
    """The Lua of a rule set, compiled once. Not thread-safe: one a DoFn instance.

    A rule that keeps hitting its limits is set aside by ``quarantine``, which those of a worker may share. With
    ``isolation="process"`` the Lua runs in a process of this object's own (``sandbox_process``).

    Raises:
        RuleError: Lua that does not compile; the message has the rule's name and Lua's line.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        quarantine: Quarantine | None = None,
        clock_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        isolation: Isolation = "none",
    ) -> None:
        self.rules = rules
        self.by_name = {rule.name: rule for rule in rules}
        # Whether an event waits for its user's profile, and how many rules pass it over if it does not.
        self.waits = any(rule.on_missing_profile == WAIT for rule in rules)
        self.skipping = sum(rule.on_missing_profile == SKIP for rule in rules)
        self._quarantine = Quarantine() if quarantine is None else quarantine
        self._clock_ms = clock_ms
        self._programs = [_Program(rule, *program) for rule in rules for program in programs_of(rule)]
        self._has_keys = any(program.field == COOLDOWN_KEY for program in self._programs)
        # Keys are asked for when their rule has fired, everything else always.
        self._usual = "".join("0" if program.field == COOLDOWN_KEY else "1" for program in self._programs)
        self._nothing = {"0" * len(self._programs), self._usual.replace("0", "-").replace("1", "0")}
        programs = [(program.name, program.source, program.field == COOLDOWN_KEY) for program in self._programs]
        try:
            self._engine: Engine = SandboxProcess(programs) if isolation == "process" else Sandbox(programs)
        except CompileError as error:
            bad = self._programs[error.number]
            raise RuleError(f"rule {bad.rule.name!r}: {bad.field} does not compile: {error}") from None
        reads = self._engine.reads
        self._reads_visit = reads["visit"] != []
        self._user_fields = None if reads["user"] is None else _profile_fields(tuple(reads["user"]))

    def evaluate(self, event: Event, visit: Visit, user: UserState) -> Verdict:
        """Ask every rule about one event; a rule's failure is its own."""
        quarantined: tuple[Rule, ...] = ()
        mask = self._usual if self._has_keys else None
        if self._quarantine:
            now_ms = self._clock_ms()
            quarantined = tuple(rule for rule in self.rules if not self._quarantine.allows(_version_of(rule), now_ms))
            if quarantined:
                mask = self._mask(lambda program: program.rule not in quarantined and program.field != COOLDOWN_KEY)
        try:
            self._engine.give(
                event.fields,
                user.profile() if self._user_fields is None else user.profile_fields(self._user_fields),
                visit.public() if self._reads_visit else {},
            )
            marks, texts = self._engine.run(mask, None)
            if marks in self._nothing:
                return _NO_RULE
            found = _Found(self._programs, marks, texts)
            self._ask_further(found, user)
        except SandboxError as error:
            return Verdict(errors=tuple((rule, str(error)) for rule in self.rules))
        return self._verdict(found, quarantined)

    def _ask_further(self, found: _Found, user: UserState) -> None:
        """Ask those again that reached for the history, then for the keys of rules that fire."""
        history: Columns | None = None
        if "H" in found.marks:
            history = columns_of(user.history.rows())
            found.update(*self._engine.run("".join("1" if mark == "H" else "0" for mark in found.marks), history))
        if self._has_keys and "1" in found.marks:
            allowed = found.rules("1", FILTER)
            mask = self._mask(lambda program: program.field == COOLDOWN_KEY and program.rule in allowed)
            found.update(*self._engine.run(mask, history or columns_of(user.history.rows())))

    def _mask(self, wanted: Callable[[_Program], bool]) -> str:
        return "".join("1" if wanted(program) else "0" for program in self._programs)

    def _verdict(self, found: _Found, quarantined: tuple[Rule, ...]) -> Verdict:
        tripped = found.rules("L")
        for rule in tripped:
            self._quarantine.trip(_version_of(rule), self._clock_ms())
        failed = {rule.name for rule, _ in found.errors()}
        return Verdict(
            # Without its key a rule's cooldown cannot be looked up: it fails as a whole.
            tuple(rule for rule in found.rules("1", FILTER) if rule.name not in failed),
            tuple(found.errors()),
            tripped,
            quarantined,
            tuple(rule for rule in found.rules("1", FOLLOWED_BY, NOT_FOLLOWED_BY) if rule.name not in failed),
            found.keys(),
        )

    def close(self) -> None:
        """End the process, with ``isolation="process"``."""
        if isinstance(self._engine, SandboxProcess):
            self._engine.close()


def _version_of(rule: Rule) -> str:
    """What is set aside: a higher version of the rule may be the one that was repaired."""
    return f"{rule.name} {rule.version}"


def columns_of(rows: list[Row]) -> Columns:
    """A history as the sandbox takes it; the only place here that looks into rows."""
    extras = [row.extra for row in rows]
    return (
        [row.timestamp_ms for row in rows],
        [row.event_id for row in rows],
        [row.event_name for row in rows],
        [extra or {} for extra in extras] if any(extras) else None,
    )


@functools.lru_cache(maxsize=100)
def _profile_fields(names: tuple[str, ...]) -> ProfileFields:
    """One object for all DoFn instances: what a user keeps of its profile is known by it."""
    return ProfileFields(names)


class _Found:
    """Marks and texts of programs, over one or more calls."""

    def __init__(self, programs: list[_Program], marks: str, texts: str) -> None:
        self._programs = programs
        self.marks = ["-"] * len(programs)
        self._texts = [""] * len(programs)
        self.update(marks, texts)

    def update(self, marks: str, texts: str) -> None:
        following = iter(texts.split("\0"))
        for number, mark in enumerate(marks):
            if mark != "-":
                self.marks[number] = mark
            if mark in "ELV":
                self._texts[number] = next(following)

    def rules(self, mark: str, *fields: str) -> tuple[Rule, ...]:
        """Rules with a program of this mark, once each."""
        found = {
            program.rule.name: program.rule
            for program, given in zip(self._programs, self.marks, strict=True)
            if given == mark and (not fields or program.field in fields)
        }
        return tuple(found.values())

    def errors(self) -> list[tuple[Rule, str]]:
        """The first error of each rule that has one."""
        found: dict[str, tuple[Rule, str]] = {}
        for program, mark, text in zip(self._programs, self.marks, self._texts, strict=True):
            if mark in "EL":
                found.setdefault(program.rule.name, (program.rule, text))
        return list(found.values())

    def keys(self) -> dict[str, str]:
        """Values of programs that have one, by rule name."""
        every = zip(self._programs, self.marks, self._texts, strict=True)
        return {program.rule.name: text for program, mark, text in every if mark == "V"}


def lua_problems(rule: Rule) -> list[tuple[str, str]]:
    """Field and message for each of a rule's Lua texts that cannot work; Lua's own messages have its line."""
    problems = []
    for name, text in programs_of(rule):
        message, unknown = compile_alone(text, rule.name)
        if message is not None:
            line = re.match(r"[^:\n]*:\d+: ", message)
            at = line.end() if line else 0
            problems.append((name, f"{message[:at]}does not compile: {message[at:]}"))
            continue
        is_expression = compile_alone(f"return (\n{text}\n)", "")[0] is None
        if not is_expression and re.search(r"\breturn\b", text) is None:
            problems.append((name, "never allows anything: a body needs a return"))
        for one in unknown:
            found = re.search(rf"\b{re.escape(one)}\b", text)
            line_number = text.count("\n", 0, found.start()) + 1 if found else 1
            problems.append((name, f"{rule.name}:{line_number}: reads {one!r}: there is no such name"))
    return problems
