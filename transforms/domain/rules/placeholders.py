"""Placeholders in the texts of an action's body: their grammar, and what check says of texts that miss it.

    text        = { literal | placeholder }
    placeholder = "${" path [ "|" default ] "}" | '${"${"}'   # the latter is the text ${
    path        = root { "." name | "[" number "]" | '["' any text '"]' }   # root: one of ROOTS

What does not fit the grammar is literal text where a body is filled in, as live rule sets may have it; ``problems`` has
a message for it, so that check refuses it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final, NamedTuple

from transforms.domain.base.suggestions import did_you_mean

# The first names of placeholders: the enriched event by the names that filters use, and the action.
ROOTS: Final = ("event", "user", "visit", "history", "enrichment", "action", "begun")
# All that these have; events and ``user`` may have fields of their own.
CLOSED: Final[dict[str, tuple[str, ...]]] = {
    "action": ("id", "name", "rule", "version"),
    "visit": ("visit_id", "start_time", "page_count", "is_first_visit"),
    "history": (),
    "enrichment": (),
}

# What the enriched event calls them.
_ENRICHED: Final = {"userProfile": "user", "currentVisit": "visit", "eventHistory": "history", "profile": "user"}

# A quoted name may have a brace; where quotes do not end, the first brace does.
_PLACEHOLDER: Final = re.compile(r'\$\{((?:"[^"\n]*"|[^"}])*|[^}]*)\}')
_STEP: Final = re.compile(r'\.([A-Za-z_]\w*)|\[(-?[1-9]\d{0,5})\]|\["([^"\n]+)"\]')
_PATH: Final = re.compile(rf"[A-Za-z_]\w*(?:{_STEP.pattern}){{0,8}}")
# How a body writes ``${`` where it means no placeholder.
_SIGN: Final = "${"
_QUOTED_SIGN: Final = f'"{_SIGN}"'
_UNCLOSED: Final = re.compile(r"\$\{[^}]*\Z")
# How placeholders are written elsewhere: {{event.x}}, {event.x}, $event.x, $(event.x), #{event.x}, <%= event.x %>.
_FOREIGN: Final = re.compile(
    rf"(?<!\$)(?:\{{\{{?|\$\(|\$|[#%@]\{{|<%=?)\s*(?:{'|'.join(ROOTS)})\b(?!\s*\{{)(?:\.\w+)*\s*[}})%>]*"
)
_Path = tuple[str | int, ...]


class Placeholder(NamedTuple):
    """A value of the enriched event or the action, by its path; ``default`` stands for a value that is not there."""

    path: str
    default: str | None = None

    @property
    def root(self) -> str:
        """The first name of the path."""
        return re.split(r"[.\[]", self.path, maxsplit=1)[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The names below the root, up to the first number."""
        return tuple(str(step) for step in takewhile(lambda step: isinstance(step, str), steps_of(self.path)))


@lru_cache(maxsize=4096)
def steps_of(path: str) -> tuple[str | int, ...]:
    """The names and numbers below the root of a path; numbers count from 1, or from the end if they are negative."""
    found = _STEP.finditer(path)
    return tuple(int(match[2]) if match[2] else match[1] or match[3] for match in found)


@lru_cache(maxsize=4096)
def parts_of(text: str) -> tuple[str | Placeholder, ...]:
    """The literals and placeholders of a text, in their order; without empty literals."""
    pieces = _PLACEHOLDER.split(text)
    parts = [piece if number % 2 == 0 else _placeholder(piece) for number, piece in enumerate(pieces)]
    return tuple(part for part in parts if part != "")


def _placeholder(content: str) -> Placeholder:
    if content == _QUOTED_SIGN:
        return Placeholder(content, _SIGN)  # no value has this path, so it is its default
    match = _PATH.match(content)
    at = match.end() if match is not None else 0
    return Placeholder(content[:at], content[at + 1 :]) if content[at : at + 1] == "|" else Placeholder(content)


def check(placeholder: Placeholder) -> None:
    """Check that a placeholder has a path that can have a value.

    Raises:
        ValueError: it has none.
    """
    if placeholder.path == _QUOTED_SIGN:
        return
    if not _PATH.fullmatch(placeholder.path) or placeholder.root not in ROOTS:
        shown = f"${{{placeholder.path}}}"
        match = re.match(r"\w*", placeholder.path.strip())
        root = match[0] if match else ""
        if root in ROOTS:
            hint = f'; after {root} allowed is .name, ["any name"], [1] or [-1], then |default, without spaces'
        else:
            hint = f"; did you mean {_ENRICHED[root]!r}?" if root in _ENRICHED else did_you_mean(root, ROOTS)
        raise ValueError(f"{shown} is no path of names that begins with one of {', '.join(ROOTS)}{hint}")


def placeholders_of(body: Any, at: _Path = ()) -> Iterator[tuple[_Path, Placeholder]]:
    """The placeholders of a body's texts, each with the path of its text."""
    for path, value in _values(body, at):
        if isinstance(value, str):
            yield from ((path, part) for part in parts_of(value) if isinstance(part, Placeholder))


def problems(body: Any, at: _Path = ()) -> Iterator[tuple[_Path, str]]:
    """What is sent otherwise than its author means: the path of each such value, and a message."""
    for path, value in _values(body, at):
        if isinstance(value, dict):
            for name in value:
                if "${" in name:
                    yield (*path, name), f"the name {name!r} has a placeholder, allowed are placeholders in values"
        elif isinstance(value, float) and not math.isfinite(value):
            yield path, f"{value} is a number that JSON cannot hold: write it as a text"
        elif isinstance(value, str):
            yield from ((path, message) for message in _problems_of_text(value))


def foreign(body: Any, at: _Path = ()) -> Iterator[tuple[_Path, str]]:
    """What looks like a placeholder of another template language and is sent as it is: path and text."""
    for path, value in _values(body, at):
        if isinstance(value, str):
            for literal in parts_of(value):
                if not isinstance(literal, Placeholder):
                    yield from ((path, match[0].strip()) for match in _FOREIGN.finditer(literal))


def _problems_of_text(text: str) -> Iterator[str]:
    for part in parts_of(text):
        if not isinstance(part, Placeholder):
            unclosed = _UNCLOSED.search(part)
            if unclosed is not None:
                yield f"{unclosed[0][:50]!r} is not closed, allowed is a placeholder like ${{event.event_name}}"
        elif part.root in CLOSED and steps_of(part.path):
            yield from _problem_of_closed(part)


def _problem_of_closed(placeholder: Placeholder) -> Iterator[str]:
    root, known, shown = placeholder.root, CLOSED[placeholder.root], f"${{{placeholder.path}}}"
    if not placeholder.names:
        if root != "history":
            yield f"{shown} has no value: {root} is no list"
    elif not known:
        written = "${history} or ${history[-1].event_name}" if root == "history" else f"${{{root}}}"
        yield f"{shown} has no value: {root} is a {'list' if root == 'history' else 'text'}, write {written}"
    elif placeholder.names[0] not in known:
        hint = did_you_mean(placeholder.names[0], known)
        allowed = ", ".join(f"{root}.{name}" for name in known)
        yield f"{shown} has no value{hint or f', allowed: {allowed}'}"
    elif len(placeholder.names) > 1:
        yield f"{shown} has no value: {root}.{placeholder.names[0]} has no fields"


def _values(body: Any, at: _Path) -> Iterator[tuple[_Path, Any]]:
    """A value and all values inside it, each with its path."""
    yield at, body
    inner = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list | tuple) else ()
    for key, value in inner:
        yield from _values(value, (*at, key))
