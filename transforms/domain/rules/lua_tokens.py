"""Splits Lua into tokens, for checks that explain what is written. It takes any text, also one that is no Lua."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

KEYWORDS: Final = frozenset(
    """and break do else elseif end false for function goto if in local nil not or repeat return then true until
    while""".split()  # noqa: SIM905
)
OPENING: Final = frozenset(["(", "[", "{"])
CLOSING: Final = frozenset([")", "]", "}"])
BLOCK_BEGINS: Final = frozenset(["function", "if", "do", "repeat"])
BLOCK_ENDS: Final = frozenset(["end", "until"])
COMPARISONS: Final = frozenset(["==", "~=", "<", "<=", ">", ">="])

# Signs of other languages (&&, !=) are one token, too: no Lua has them.
_TOKEN: Final = re.compile(
    r"""(?P<comment>--\[(?P<c>=*)\[.*?(?:\](?P=c)\]|\Z) | --[^\n]*)
      | (?P<text>\[(?P<t>=*)\[.*?(?:\](?P=t)\]|\Z) | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
      | (?P<name>[^\W\d]\w*)
      | (?P<number>0[xX][0-9A-Fa-f]+ | (?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
      | (?P<sign>===|!==|==|~=|<=|>=|!=|<>|&&|\|\||\+\+|[-+*/%]=|\.\.\.?|//|/\*|\S)
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A token: its kind (``text``, ``name`` with keywords, ``number``, ``sign``), its text, line (from 1) and place."""

    kind: str
    text: str
    line: int
    at: int

    @property
    def is_identifier(self) -> bool:
        """Whether it is a name that a script may choose."""
        return self.kind == "name" and self.text not in KEYWORDS

    @property
    def is_literal(self) -> bool:
        """Whether it is a value that is written out."""
        return self.kind in ("text", "number") or self.text in ("true", "false", "nil")

    @property
    def value(self) -> str | float | bool | None:
        """The value of a literal; the text of one with escapes is not read, but as it is written."""
        if self.kind == "number":
            return float(int(self.text, 16)) if self.text[:2].lower() == "0x" else float(self.text)
        if self.kind == "text":
            return re.sub(r"\A\[=*\[|\]=*\]\Z", "", self.text) if self.text[0] == "[" else self.text[1:-1]
        return {"true": True, "false": False}.get(self.text)


END: Final = Token("end", "", 0, 0)
# Of longer texts brackets that do not close would take seconds.
MAX_CHARACTERS: Final = 16_000


def tokens_of(source: str) -> list[Token]:
    """The tokens of a text without its comments; none of a text longer than ``MAX_CHARACTERS``."""
    return list(all_tokens(source)) if len(source) <= MAX_CHARACTERS else []


def all_tokens(source: str) -> Iterator[Token]:
    """The tokens of a text of any length, which compiles: its brackets close."""
    line, counted = 1, 0
    for match in _TOKEN.finditer(source):
        line += source.count("\n", counted, match.start())
        counted = match.start()
        if match["comment"] is None:
            kind = next(kind for kind in ("text", "name", "number", "sign") if match[kind] is not None)
            yield Token(kind, match[0], line, match.start())


def after_brackets(tokens: list[Token]) -> dict[int, int]:
    """By the number of each opening bracket that of the token after its closing one; their count without one."""
    after: dict[int, int] = {}
    open_brackets: list[int] = []
    for number, token in enumerate(tokens):
        if token.kind == "sign" and token.text in OPENING:
            open_brackets.append(number)
        elif token.kind == "sign" and token.text in CLOSING and open_brackets:
            after[open_brackets.pop()] = number + 1
    return after | dict.fromkeys(open_brackets, len(tokens))
