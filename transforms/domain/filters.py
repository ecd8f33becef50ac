"""Rules' Lua filters, run by LuaJIT through lupa where they can reach nothing but the event and its user.

The sandbox itself is ``sandbox.lua``; what it holds against is in tests/transforms/domain/test_filters.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

import lupa.luajit21

from transforms.domain.events import Event
from transforms.domain.history import Row
from transforms.domain.rules import Rule, RuleError
from transforms.domain.users import UserState, Visit

_NO_LIMIT: Final = 2**40
_MEMORY_PER_CALL: Final = 16 * 1024 * 1024
_MEMORY_KEPT: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the filters said of one event: the rules that allow it, and (rule, message) for those that failed."""

    allowed: tuple[Rule, ...] = ()
    errors: tuple[tuple[Rule, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Reads:
    """Which names of a table the filters read; None is all of them (the table is used as a whole somewhere)."""

    names: frozenset[str] | None = field(default_factory=frozenset)

    @classmethod
    def of(cls, table: str, sources: list[str]) -> _Reads:
        text = "\n".join(sources)
        named = re.findall(rf"\b{table}\s*\.\s*([A-Za-z_]\w*)", text)
        if len(named) < len(re.findall(rf"\b{table}\b", text)):
            return cls(None)
        return cls(frozenset(named))

    def pick(self, source: dict[str, Any]) -> dict[str, Any]:
        if self.names is None:
            return source
        return {name: source[name] for name in self.names if name in source}


class FilterSet:
    """The filters of a rule set, compiled once. Not thread-safe: one a DoFn instance.

    Raises:
        RuleError: a filter does not compile; the message has the rule's name and Lua's line.
    """

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        sources = [rule.filter for rule in rules]
        self._event = _Reads.of("event", sources)
        self._user = _Reads.of("user", sources)
        self._visit = _Reads.of("visit", sources)
        self.reads_user = self._user.names is None or bool(self._user.names)
        self._reads_visit = self._visit.names is None or bool(self._visit.names)
        self._reads_history = bool(re.search(r"\bhistory\b", "\n".join(sources)))
        self._start()

    def _start(self) -> None:
        self._lua, compile_filter, self._evaluate = _sandbox()
        for rule in self.rules:
            message = compile_filter(rule.filter, rule.name)
            if message is not None:
                raise RuleError(f"rule {rule.name!r}: filter does not compile: {message}")
        self._table = self._lua.table_from

    def evaluate(self, event: Event, profile: dict[str, Any], visit: Visit, user: UserState) -> Verdict:
        """Ask every filter about one event; a filter's failure is its own."""
        try:
            tables = (
                self._table(self._event.pick(event.fields), recursive=True),
                self._table(self._user.pick(profile), recursive=True),
                self._table(self._visit.pick(visit.public()) if self._reads_visit else {}),
            )
            marks, messages = self._call(*tables, *self._columns(user.history.rows() if self._reads_history else None))
        except (lupa.luajit21.LuaError, UnicodeDecodeError, OverflowError, MemoryError) as error:
            self._start()
            return Verdict(errors=tuple((rule, f"{type(error).__name__}: {error}") for rule in self.rules))
        if "1" not in marks and "E" not in marks:
            return Verdict()
        failed = [rule for rule, mark in zip(self.rules, marks, strict=True) if mark == "E"]
        return Verdict(
            tuple(rule for rule, mark in zip(self.rules, marks, strict=True) if mark == "1"),
            tuple(zip(failed, messages.split("\0"), strict=True)) if failed else (),
        )

    def _columns(self, rows: list[Row] | None) -> tuple[Any, ...]:
        if rows is None:
            return (None, None, None, None)
        columns = tuple(self._table([row[index] for row in rows]) for index in range(3))
        if not any(row[3] for row in rows):
            return (*columns, None)
        return (*columns, self._table([row[3] or {} for row in rows], recursive=True))

    def _call(self, *arguments: Any) -> tuple[str, str]:
        used = self._lua.get_memory_used()
        if used > _MEMORY_KEPT:
            self._lua.gccollect()
            used = self._lua.get_memory_used()
        # Only around the call: at the limit, lupa's own conversions abort the process (notes/lua.md).
        self._lua.set_max_memory(used + _MEMORY_PER_CALL)
        try:
            marks, messages = self._evaluate(*arguments)
        finally:
            self._lua.set_max_memory(_NO_LIMIT)
        return marks, messages


def lua_texts(rule: Rule) -> dict[str, str]:
    """A rule's Lua, by field."""
    texts = {"filter": rule.filter}
    if rule.cooldown is not None and rule.cooldown.key is not None:
        texts["cooldown.key"] = rule.cooldown.key
    if rule.sequence is not None:
        followers = {"followed_by": rule.sequence.followed_by, "not_followed_by": rule.sequence.not_followed_by}
        texts |= {f"sequence.{name}": text for name, text in followers.items() if text is not None}
    return texts


def lua_problems(rule: Rule) -> list[tuple[str, str]]:
    """Field and message for each of a rule's Lua texts that cannot work; Lua's own messages have its line."""
    _, compile_filter, _ = _sandbox()
    problems = []
    for name, text in lua_texts(rule).items():
        message = compile_filter(text, rule.name)
        if message is not None:
            line = re.match(r"[^:\n]*:\d+: ", message)
            at = line.end() if line else 0
            problems.append((name, f"{message[:at]}does not compile: {message[at:]}"))
        elif re.search(r"\breturn\b", text) is None and compile_filter(f"return (\n{text}\n)", rule.name) is not None:
            problems.append((name, "never fires: a body needs a return"))
    return problems


def _sandbox() -> tuple[Any, Any, Any]:
    """A Lua runtime with its ``compile`` and ``evaluate``."""
    lua = lupa.luajit21.LuaRuntime(
        register_eval=False,
        register_builtins=False,
        unpack_returned_tuples=True,
        attribute_filter=_refuse,
        # A limit has to be named here for set_max_memory to work at all; the one in force is set around each call.
        max_memory=_NO_LIMIT,
    )
    bootstrap = resources.files("transforms.domain").joinpath("sandbox.lua").read_text("utf-8")
    compile_filter, evaluate = lua.execute(bootstrap)
    return lua, compile_filter, evaluate


def _refuse(*_: object) -> None:
    raise AttributeError("rules have no access to Python objects")
