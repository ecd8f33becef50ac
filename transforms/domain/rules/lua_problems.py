"""What is wrong with a rule's Lua, found without running it: it does not compile, or never returns."""

from __future__ import annotations

import functools
import re
from typing import Final

from transforms.domain.rules import engine, lua_hints
from transforms.domain.rules.lua_tokens import MAX_CHARACTERS, tokens_of
from transforms.domain.rules.model import Rule
from transforms.domain.rules.programs import SEQUENCE, programs_of

_LUA_NAME: Final = re.compile(r"[A-Za-z_\x80-\U0010ffff][0-9A-Za-z_\x80-\U0010ffff]*")


def lua_problems(rule: Rule, lua: engine.SourceChecker) -> list[tuple[str, str]]:
    """Field and message for each of a rule's Lua texts that cannot work; Lua's own messages have its line."""
    problems = []
    for field_name, source in programs_of(rule):
        check = lua.check(source, rule.name)
        if check.problem is not None:
            place, message = _place_and_message(source, check.problem)
            hint = lua_hints.hint_of(source, check.problem, functools.partial(_compiles, lua))
            problems.append((field_name, f"{place}does not compile: {message}{'' if hint is None else f'; {hint}'}"))
            continue
        if not check.is_expression and re.search(r"\breturn\b", source) is None:
            compiles = functools.partial(_compiles, lua)
            problems.append((field_name, lua_hints.never_returns(source, compiles) or lua_hints.NEVER))
        lines = _first_lines(source) if check.unknown_names else {}
        unknown = [name for name in check.unknown_names if name != "begun" or not field_name.startswith(SEQUENCE)]
        for name in sorted(unknown, key=lambda name: lines.get(name, 1)):
            line = lines.get(name, 1)
            hint = lua_hints.hint_of_name(name)
            shown = f"reads {name!r}: there is no such name{'' if hint is None else f'; {hint}'}"
            problems.append((field_name, f"{rule.name}:{line}: {shown}"))
    return problems


def _place_and_message(source: str, problem: str) -> tuple[str, str]:
    """The ``chunk:line: `` of Lua's message, empty without one, and the rest of it."""
    place = re.match(r"([^:\n]*):(\d+): ", problem)
    if place is None:
        return "", problem
    last_line = source.rstrip().count("\n") + 1
    if int(place[2]) <= last_line:
        return place[0], problem[place.end() :]
    # The engine puts an expression in brackets, of which its author knows nothing.
    message = problem[place.end() :].replace("unexpected symbol near ')'", "it ends before it is complete")
    return f"{place[1]}:{last_line}: ", message


def _compiles(lua: engine.SourceChecker, source: str) -> bool:
    return lua.check(source, "hint").problem is None


def never_returning(rule: Rule, lua: engine.SourceChecker) -> list[str]:
    """The fields whose Lua has a ``return`` only within functions or texts, so that it never allows anything."""
    return [
        name
        for name, source in programs_of(rule)
        if "return" in source
        and len(source) <= MAX_CHARACTERS
        and not lua_hints.returns(tokens_of(source))
        and not (check := lua.check(source, rule.name)).is_expression
        and check.problem is None
        and re.search(r"\breturn\b", source) is not None
    ]


def _first_lines(source: str) -> dict[str, int]:
    """The line on which each name of a Lua text is first. One pass, as there may be thousands."""
    lines: dict[str, int] = {}
    for number, line in enumerate(source.split("\n"), 1):
        for name in _LUA_NAME.findall(line):
            lines.setdefault(name, number)
    return lines
