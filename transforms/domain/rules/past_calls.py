"""Calls of ``count``, ``last`` and ``distinct`` in a Lua text: their options, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from transforms.domain.base.suggestions import did_you_mean
from transforms.domain.rules.lua_tokens import BLOCK_BEGINS, BLOCK_ENDS, Token

_OPTIONS: Final = ("event", "within", "where")
ALLOWED: Final = {"count": _OPTIONS, "last": _OPTIONS, "distinct": (*_OPTIONS, "of")}
IN_BRACES: Final = 'needs its options in braces, as in count{event="view", within="10m"}'
_DURATION: Final = re.compile(r"[1-9][0-9]{0,7}[smhdw]")


class Option(NamedTuple):
    """An option of a call: its name, empty if it has none, and its value if that is written out.

    ``name`` is None of a value in place of the options, as in ``count("view")``.
    """

    name: str | None
    line: int
    literal: Token | None


class PastCall(NamedTuple):
    """A call whose options are written out, from the token ``at`` to before ``end``."""

    function: str
    line: int
    at: int
    end: int
    options: tuple[Option, ...]

    def text_of(self, name: str) -> str | None:
        """The value of an option that is a text."""
        literals = [option.literal for option in self.options if option.name == name]
        return str(literals[0].value) if literals and literals[0] is not None and literals[0].kind == "text" else None

    def faults(self) -> Iterator[tuple[int, str]]:
        """Line and message of what the call fails with, whenever it is reached."""
        allowed = ALLOWED[self.function]
        for name, line, literal in self.options:
            if name is None:
                yield line, f"{self.function} {IN_BRACES}"
                return
            if name not in allowed:
                shown = f"has the option {name!r}" if name else "has an option without a name"
                hint = did_you_mean(name, allowed) if name else ""
                yield line, f"{self.function} {shown}{hint}; allowed: {', '.join(allowed)}"
            elif literal is not None and literal.text != "nil":
                expected = _expected(name, literal)
                if expected is not None:
                    yield line, f"{self.function}: {name} is {literal.text[:50]}, allowed is {expected}"
        if "of" in allowed and all(option.name != "of" for option in self.options):
            yield self.line, f'{self.function} needs of, a field of events: {self.function}{{of="parameters.sku"}}'


def _expected(name: str, literal: Token) -> str | None:
    """What an option needs to be, None if this value of it is fine."""
    value = literal.value
    if name == "event":
        return None if literal.kind == "text" else "the name of an event"
    if name == "within":
        is_fine = _DURATION.fullmatch(value) if isinstance(value, str) else literal.kind == "number" and value != 0
        return None if is_fine else 'ms or a duration like "10m"'
    if name == "of":
        return None if literal.kind == "text" else "the name of a field"
    return "a function, as in function(e) return e.timestamp > 0 end"


def past_calls(tokens: Sequence[Token], after: Mapping[int, int]) -> Iterator[PastCall]:
    """The calls in a text; ``after`` is ``after_brackets`` of its tokens."""
    for at, token in enumerate(tokens):
        if token.text not in ALLOWED or token.kind != "name" or (at and tokens[at - 1].text in (".", ":", "function")):
            continue
        texts = [following.text for following in tokens[at + 1 : at + 3]]
        begin = at + 1 if texts[:1] == ["{"] else at + 2 if texts == ["(", "{"] else None
        if begin is not None:
            options = tuple(_options(tokens, after, begin + 1, min(after[begin], len(tokens)) - 1))
            yield PastCall(token.text, token.line, at, after[at + 1], options)
        elif at + 1 < len(tokens) and (tokens[at + 1].kind == "text" or texts == ["(", ")"] or _is_value(tokens, at)):
            yield PastCall(token.text, token.line, at, at + 1, (Option(None, token.line, None),))


def _is_value(tokens: Sequence[Token], at: int) -> bool:
    """Whether a name is called with one literal."""
    texts = [tokens[place].text for place in (at + 1, at + 3) if place < len(tokens)]
    return texts == ["(", ")"] and tokens[at + 2].is_literal


def _options(tokens: Sequence[Token], after: Mapping[int, int], at: int, end: int) -> Iterator[Option]:
    """The options between the braces of a call, without those whose name is computed."""
    while at < end:
        token, name, begin = tokens[at], "", at
        if token.is_identifier and tokens[at + 1].text == "=":
            name, begin = token.text, at + 2
        elif token.text == "[" and token.kind == "sign":
            name, begin = str(tokens[at + 1].value), after[at] + 1
        is_computed = begin > at + 2 and (tokens[at + 1].kind != "text" or after[at] != at + 3)
        at = _end_of_value(tokens, after, begin, end)
        if not is_computed:
            is_literal = at == begin + 1 and tokens[begin].is_literal
            yield Option(name, token.line, tokens[begin] if is_literal else None)
        at += 1


def _end_of_value(tokens: Sequence[Token], after: Mapping[int, int], at: int, end: int) -> int:
    blocks = 0  # such as functions, which have commas of their own
    while at < end:
        token = tokens[at]
        if token.kind == "sign" and at in after:
            at = after[at]
            continue
        if token.kind == "name":
            blocks += (token.text in BLOCK_BEGINS) - (token.text in BLOCK_ENDS)
        elif token.text in (",", ";") and token.kind == "sign" and blocks <= 0:
            return at
        at += 1
    return end
