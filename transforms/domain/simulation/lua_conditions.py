"""Splits a Lua expression into the conditions that ``and``, ``or``, ``not`` and comparisons join.

This is not a complete parser: it skips texts, comments, brackets and ``function … end`` as a whole. An expression that
it does not understand stays one condition, which is correct but explains less.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""--\[(?P<c>=*)\[.*?\](?P=c)\] | --[^\n]*      # comments
      | \[(?P<t>=*)\[.*?\](?P=t)\]                   # long texts
      | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'    # texts
      | [A-Za-z_]\w* | [0-9][\w.]*                   # names, numbers
      | == | ~= | <= | >= | \.\.\.? | \S
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENING: Final = {"(", "[", "{", "function", "if", "do", "repeat"}
_CLOSING: Final = {")", "]", "}", "end", "until"}
_LOGIC: Final = ("or", "and")  # weakest first
_COMPARISONS: Final = ("<", ">", "<=", ">=", "~=", "==")


@dataclass(frozen=True, slots=True)
class Condition:
    """A part of an expression: its text, its parts, and the operator that joins them (None for a leaf)."""

    text: str
    joined_by: str | None = None
    parts: tuple[Condition, ...] = ()


def take_apart(expression: str) -> Condition:
    """Split an expression into a tree of conditions."""
    text = _without_comments(expression)
    for word in _LOGIC:
        pieces = _split(text, (word,))
        if len(pieces) > 1:
            return Condition(text, word, tuple(map(take_apart, pieces)))
    if re.match(r"not\b", text) and len(_split(text, _COMPARISONS)) == 1:
        return Condition(text, "not", (take_apart(text[3:]),))
    pieces = _split(text, _COMPARISONS)
    if len(pieces) == 2:
        return Condition(text, "compared", tuple(Condition(piece) for piece in pieces))
    inner = _inside_brackets(text)
    return Condition(text) if inner is None else take_apart(inner)


def _tokens(text: str) -> list[tuple[int, str]]:
    return [(match.start(), match[0]) for match in _TOKEN.finditer(text)]


def _without_comments(text: str) -> str:
    kept = [(at, token) for at, token in _tokens(text) if not token.startswith("--")]
    spaced: list[str] = []
    end = None
    for at, token in kept:
        if end is not None and at > end:
            spaced.append(" ")
        spaced.append(token)
        end = at + len(token)
    return "".join(spaced)


def _split(text: str, words: tuple[str, ...]) -> list[str]:
    """Split at words that are not within brackets."""
    pieces, depth, begin = [], 0, 0
    for at, token in _tokens(text):
        depth += (token in _OPENING) - (token in _CLOSING)
        if depth == 0 and token in words:
            pieces.append(text[begin:at].strip())
            begin = at + len(token)
    return [*pieces, text[begin:].strip()]


def _inside_brackets(text: str) -> str | None:
    """Return the text within the brackets that enclose the whole text, None if there are none."""
    if not text.startswith("("):
        return None
    depth = 0
    for at, token in _tokens(text):
        depth += (token in _OPENING) - (token in _CLOSING)
        if depth == 0:
            return text[1:at] if at == len(text) - 1 else None
    return None
