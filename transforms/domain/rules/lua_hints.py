"""What authors most often mean by what is no Lua, or other Lua: ``=`` for ``==``, ``!=``, a missing ``return``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from transforms.domain.base.suggestions import misspelt
from transforms.domain.events.event import KnownFields
from transforms.domain.rules.engine import ENRICHMENT, TIME_NAMES
from transforms.domain.rules.lua_reads import INPUTS
from transforms.domain.rules.lua_tokens import (
    BLOCK_BEGINS,
    BLOCK_ENDS,
    CLOSING,
    COMPARISONS,
    END,
    KEYWORDS,
    Token,
    tokens_of,
)
from transforms.domain.rules.past_calls import ALLOWED, IN_BRACES

_QUOTES: Final = 'texts are in straight quotation marks: "text"'
# Signs that no Lua has.
_SIGNS: Final = {
    "!=": "Lua writes `~=` for not equal",
    "!==": "Lua writes `~=` for not equal",
    "<>": "Lua writes `~=` for not equal",
    "===": "Lua writes `==` for equal",
    "&&": "Lua writes `and`",
    "||": "Lua writes `or`",
    "!": "Lua writes `not`",
    "++": "Lua has no `++`: write `x = x + 1`",
    "+=": "Lua has no `+=`: write `x = x + 1`",
    "-=": "Lua has no `-=`: write `x = x - 1`",
    "*=": "Lua has no `*=`: write `x = x * 2`",
    "/=": "Lua has no `/=`: write `x = x / 2`, and `~=` for not equal",
    "&": "Lua writes `and`",
    "|": "Lua writes `or`",
    "?": "Lua has no `? :`: write `condition and a or b`",
    "//": "a comment begins with `--`",
    "/*": "a comment begins with `--`",
    **dict.fromkeys("\u201c\u201d\u201e\u2018\u2019`", _QUOTES),
}
# Names that Lua writes otherwise. As names of values they do not exist.
NAMES: Final = {
    **dict.fromkeys(("null", "NULL", "None", "undefined", "Nil", "NIL"), "Lua writes `nil`"),
    **dict.fromkeys(("True", "TRUE"), "Lua writes `true`"),
    **dict.fromkeys(("False", "FALSE"), "Lua writes `false`"),
    **dict.fromkeys(("AND", "And"), "Lua writes `and`"),
    **dict.fromkeys(("OR", "Or"), "Lua writes `or`"),
    **dict.fromkeys(("NOT", "Not"), "Lua writes `not`"),
    **dict.fromkeys(("var", "let", "const"), "Lua writes `local`"),
    **dict.fromkeys(("elif", "elsif"), "Lua writes `elseif`"),
    "is": "Lua writes `==`",
    **dict.fromkeys(
        ("contains", "like", "LIKE", "matches"), 'write `field:find("text", 1, true)` for a text in a text'
    ),
    **dict.fromkeys(("profile", "userProfile"), "the profile is `user`"),
    "begun": "the event that began a sequence is in the Lua of its steps, and in bodies as ${begun.event_name}",
    **dict.fromkeys(("currentVisit", "eventHistory"), "write `visit` and `history`"),
}
_LIBRARY: Final = (
    "error",
    "ipairs",
    "math",
    "next",
    "pairs",
    "select",
    "string",
    "table",
    "tonumber",
    "tostring",
    "type",
)
_MOST_TRIES: Final = 12
_GLOBALS: Final = (*INPUTS, *TIME_NAMES, ENRICHMENT, "bucket", "days_between", *_LIBRARY)
NEVER: Final = "never allows anything: a body needs a return"

Compiles = Callable[[str], bool]


def hint_of(source: str, problem: str, compiles: Compiles) -> str | None:
    """What a text that does not compile most likely should be; None if nothing says so.

    Args:
        source: the text.
        problem: Lua's message, which has the line.
        compiles: whether another text compiles: it proves a hint.
    """
    place = re.match(r"[^:\n]*:(\d+): ", problem)
    line = int(place[1]) if place else 1
    tokens = tokens_of(source)
    # What is wrong is on the line of the message, or before.
    on_line = [number for number, token in enumerate(tokens) if token.line == line]
    for number in (*on_line, *range(len(tokens))):
        token = tokens[number]
        hint = _SIGNS.get(token.text) if token.kind == "sign" else None
        if hint is None and token.kind == "name" and _is_misplaced(tokens, number):
            hint = NAMES.get(token.text)
        if hint is not None:
            return f"`{token.text}`: {hint}"
    for at, token in enumerate(tokens[:-3]):
        opened, name, sign = (following.text for following in tokens[at + 1 : at + 4])
        if name in ALLOWED.get(token.text, ()) and f"{opened}{sign}" in ("(=", "(:", "{:"):
            return f"`{token.text}` {IN_BRACES}"
    if _compares_with_equals(source, tokens, line, compiles) or problem.endswith("near '='"):
        return "`=` assigns: to compare, write `==`"
    if re.search(r"\belse\s+if\b", source) and compiles(re.sub(r"\belse\s+if\b", "elseif", source)):
        return "`else if` begins another `if`, which needs an `end` of its own: write `elseif`"
    if problem.endswith("near 'in'"):
        return "Lua has no `in` for values: compare with each, joined by `or`"
    if _lacks_return(source, tokens, compiles):
        return "a body needs a `return` before its result"
    return None


def hint_of_name(name: str) -> str | None:
    """What a name that does not exist most likely should be; None if nothing says so."""
    if name[0] in _SIGNS or name in NAMES:
        return _QUOTES if name[0] in _SIGNS else NAMES[name]
    if name in KnownFields.__struct_fields__:
        return f"did you mean 'event.{name}'?"
    near = misspelt(name, _GLOBALS)
    return None if near is None else f"did you mean {near!r}?"


def traps(source: str) -> Iterator[tuple[int, str]]:
    """Line and message of what is Lua, but hardly what was meant."""
    tokens = [*tokens_of(source), END, END, END]
    for at, token in enumerate(tokens[:-3]):
        first, second = tokens[at + 1 : at + 3]
        if token.text == "or" and at >= 2 and first.kind in ("text", "number") and tokens[at - 1].is_literal:
            is_alone = second.text in ("", ")", "or", "and", "then")
            if tokens[at - 2].text in ("==", "~=") and is_alone:
                shown = f"`{tokens[at - 2].text} {tokens[at - 1].text} or {first.text}`"
                yield token.line, f"{shown} is always true: compare with each, as `a == 1 or a == 2`"
        if token.text == "history" and first.text == "[" and _is_no_place(tokens[at + 2 : at + 5]):
            yield token.line, "`history` begins with [1] and ends with [#history]: what is before has no value"
        if token.text == "not" and first.is_identifier and _after_field(tokens, at + 1) in COMPARISONS:
            operator = _after_field(tokens, at + 1)
            yield (
                token.line,
                f"`not {first.text}… {operator} …` compares `not {first.text}…`: write `not (… {operator} …)`",
            )


def _is_no_place(tokens: Sequence[Token]) -> bool:
    """Whether an index is written out that no list has: ``-1]`` or ``0]``."""
    texts = [token.text for token in tokens]
    return texts[:2] == ["0", "]"] or (texts[:1] == ["-"] and texts[2:] == ["]"] and tokens[1].kind == "number")


def _after_field(tokens: Sequence[Token], at: int) -> str:
    """The text of the token after a name and the names of fields that follow it."""
    while tokens[at + 1].text == "." and tokens[at + 2].kind == "name":
        at += 2
    return tokens[at + 1].text


def _is_misplaced(tokens: Sequence[Token], at: int) -> bool:
    """Whether a name stands beside another, as no Lua has it: ``a AND b``, ``var x``."""
    before, after = ([END, *tokens, END][at + number] for number in (0, 2))
    is_value_before = before.is_identifier or before.is_literal or before.text in CLOSING
    return is_value_before or after.is_identifier or after.is_literal


def _compares_with_equals(source: str, tokens: Sequence[Token], line: int, compiles: Compiles) -> bool:
    """Whether the text compiles with ``==`` in place of some ``=``."""
    signs = [token for token in tokens if token.text == "="]
    tries = [signs, [token for token in signs if token.line == line], *([token] for token in signs)]
    for chosen in tries[:_MOST_TRIES]:
        repaired = source
        for token in reversed(chosen):
            repaired = f"{repaired[: token.at]}={repaired[token.at :]}"
        if chosen and compiles(repaired):
            return True
    return False


def _lacks_return(source: str, tokens: Sequence[Token], compiles: Compiles) -> bool:
    """Whether the text compiles with a ``return`` at the begin of one of its last lines."""
    if returns(tokens):
        return False
    if compiles(re.sub(r"\b(then|else)\b", r"\1 return", source)):
        return True
    lines = source.split("\n")
    numbers = [number for number in range(len(lines) - 1, -1, -1) if lines[number].strip()]
    return any(
        compiles("\n".join([*lines[:number], f"return {lines[number]}", *lines[number + 1 :]]))
        for number in numbers[:_MOST_TRIES]
    )


def never_returns(source: str, compiles: Compiles) -> str | None:
    """Why a body that compiles never returns anything; None if it may."""
    tokens = tokens_of(source)
    if returns(tokens):
        return None
    signs = [token for token in tokens if token.text == "="]
    as_comparison = "".join("==" if token in signs[:1] else f" {token.text} " for token in tokens)
    if signs and tokens[0].text in INPUTS and compiles(f"return {as_comparison}"):
        return "never allows anything: `=` assigns, to compare write `==`"
    return NEVER


def returns(tokens: Sequence[Token]) -> bool:
    """Whether a body has a ``return`` of its own, outside of the functions in it."""
    blocks: list[str] = []
    for token in tokens:
        if token.kind != "name" or token.text not in KEYWORDS:
            continue
        if token.text == "return" and "function" not in blocks:
            return True
        if token.text in BLOCK_BEGINS:
            blocks.append(token.text)
        elif token.text in BLOCK_ENDS and blocks:
            blocks.pop()
    return False
