"""Guards: what must hold for a condition in Lua to be more than false, as Python that costs a fraction of a Lua call.

A guard is made of the leading ``and`` terms of a condition: those that compare fields of the event or the profile with
literals. If it does not hold, Lua would come to false or nil, without an error, before it gets to the term that the
guard knows nothing about. If it holds, nothing is known, and Lua has to run.

A condition that is not understood has no guard, which is correct and costs more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, get_type_hints

from transforms.domain.base.errors import EventTriggerError
from transforms.domain.events.event import KnownFields

# Numbers of the chosen conditions, by the event's known fields and the profile's fields that rules read.
Guards = Callable[[KnownFields, dict[str, Any]], list[int]]

_TOKEN: Final = re.compile(
    r"""\s+ | --(?!\[)[^\r\n]*                                          # left out
      | (?P<text>"[^"\\\r\n]*"|'[^'\\\r\n]*')
      | (?P<number>[0-9]{1,12}(?:\.[0-9]{1,3})?(?![\w.]))               # these are as exact here as in Lua
      | (?P<name>[A-Za-z_][A-Za-z_0-9]*)
      | (?P<sign>==|~=|<=|>=|\.\.\.?|\[(?!=*\[)|[-+*/%^\#<>=(){}\];:,.])
      | (?P<odd>"(?:\\[\s\S]|[^"\\\r\n])*"|'(?:\\[\s\S]|[^'\\\r\n])*'|[0-9][\w.]*)  # to be skipped
    """,
    re.VERBOSE | re.ASCII,
)
_KEYWORDS: Final = ("and", "or", "not", "nil", "true", "false")
_LITERALS: Final = {"nil": None, "true": True, "false": False}
# The fields of the event by their types in Lua, of which all numbers are one. ``parameters`` is no text or number.
_TYPES: Final[dict[str, type]] = {
    name: float if kind is int else kind
    for name, kind in get_type_hints(KnownFields).items()
    if kind in (str, bool, int, float)
}
_MIRRORED: Final = {"==": "==", "~=": "~=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_AFTER_A_TERM: Final = frozenset([("keyword", "and"), ("keyword", "or"), ("sign", ")"), ("end", "")])
_MOST_TOKENS: Final = 2000
_DEEPEST: Final = 10
_MOST_FALLIBLE: Final = 5


class _NotUnderstoodError(EventTriggerError):
    """A term is none that a guard can be made of; never leaves this module."""


class _Token(NamedTuple):
    kind: str
    text: str


class _Field(NamedTuple):
    """A field: Python that yields its value, and its type (None: any, or it is missing)."""

    python: str
    type: type | None


class _Literal(NamedTuple):
    """A literal: its value."""

    value: str | float | bool | None


class _Term(NamedTuple):
    """Python of a condition that cannot fail; ``unless``: Python of whether Lua fails instead, so that it must run."""

    python: str
    unless: str | None = None


def guard_of(source: str, knows_profile: bool = True) -> str | None:
    """A guard of a condition in Lua, as a Python expression over ``event`` and ``user``; None: nothing is known.

    Args:
        source: Lua that compiles.
        knows_profile: whether ``user`` has the fields that the condition reads.
    """
    try:
        tokens = _tokens(source)
    except _NotUnderstoodError:
        return None
    reader = _Reader(tokens, knows_profile)
    terms = reader.leading_terms()
    return _joined(terms) if terms else None


def compile_guards(guards: Sequence[tuple[int, str | None]]) -> Guards | None:
    """A function that chooses the numbers of conditions whose guard holds; None: it would choose all of them."""
    if all(guard is None for _, guard in guards):
        return None
    lines = ["def choose(event, user):", "    chosen = []"]
    for number, guard in guards:
        lines.append(f"    {'' if guard is None else f'if {guard}: '}chosen.append({number})")
    space: dict[str, Any] = {}
    # Nothing of a rule's text is in this code but its literals, as Python writes them, and names of fields.
    exec("\n".join([*lines, "    return chosen"]), space)  # noqa: S102
    choose: Guards = space["choose"]
    return choose


def _joined(terms: Sequence[_Term]) -> str:
    """One expression of all terms, each evaluated only if those before hold."""
    python = ""
    for term in reversed(terms):
        rest = f"{term.python}{f' and {python}' if python else ''}"
        python = rest if term.unless is None else f"({term.unless} or {rest})"
    return python


def _tokens(source: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None or len(tokens) == _MOST_TOKENS:
            raise _NotUnderstoodError
        if match.lastgroup is not None:
            kind = "keyword" if match["name"] in _KEYWORDS else match.lastgroup
            tokens.append(_Token(kind, match[0]))
        at = match.end()
    return tokens


class _Reader:
    """Reads the tokens of a condition from the left, as far as they are understood."""

    def __init__(self, tokens: Sequence[_Token], knows_profile: bool) -> None:
        self._tokens = [*tokens, _Token("end", "")]
        self._at = 0
        self._knows_profile = knows_profile

    def leading_terms(self) -> list[_Term]:
        """The terms that must hold; none if the condition is an ``or`` that is not understood as a whole."""
        terms: list[_Term] = []
        fallible = 0
        begin = 0
        try:
            while True:
                begin = self._at
                term = self._term()
                fallible += term.unless is not None
                if fallible > _MOST_FALLIBLE:
                    raise _NotUnderstoodError
                terms.append(term)
                if not self._takes("and"):
                    break
        except _NotUnderstoodError:
            return [] if self._has_alternatives(begin) else terms
        if self._tokens[self._at].kind == "end":
            return terms
        self._at = 0
        try:
            whole = self._alternatives(0)
        except _NotUnderstoodError:
            return []
        return [_Term(whole)] if self._tokens[self._at].kind == "end" else []

    def _has_alternatives(self, begin: int) -> bool:
        """Whether there is an ``or`` outside of brackets, so that the terms before need not hold."""
        depth = 0
        for token in self._tokens[begin:]:
            depth += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}"))
            if depth <= 0 and token == ("keyword", "or"):
                return True
        return False

    def _term(self) -> _Term:
        """A term; here, and not within others, it may be one that can fail."""
        begin = self._at
        try:
            return _Term(self._condition(0))
        except _NotUnderstoodError:
            self._at = begin
        field, operator, literal = self._comparison()
        number = literal.value if literal is not None and type(literal.value) is float else None
        if number is not None and isinstance(field, _Field) and field.type is None and operator not in ("==", "~="):
            self._check_end()
            return _Term(f"{field.python} {operator} {number!r}", f"type({field.python}) not in (int, float)")
        raise _NotUnderstoodError

    def _alternatives(self, depth: int) -> str:
        """Python of conditions that ``or`` and ``and`` join: both bind in Python as they do in Lua."""
        parts = [self._condition(depth)]
        while (text := self._tokens[self._at].text) in ("and", "or"):
            self._at += 1
            parts += [text, self._condition(depth)]
        return " ".join(parts)

    def _condition(self, depth: int) -> str:
        """Python of a condition that cannot fail, and that ends where the term ends."""
        if self._tokens[self._at].text in ("not", "("):
            python = self._unary(depth)
        else:
            field, operator, literal = self._comparison()
            python = _truth(field) if operator is None or literal is None else _compared(field, operator, literal)
        self._check_end()
        return python

    def _unary(self, depth: int) -> str:
        """Python of what ``not`` may stand before: it binds closer than a comparison."""
        if depth > _DEEPEST:
            raise _NotUnderstoodError
        if self._takes("not"):
            return f"not ({self._unary(depth + 1)})"
        if self._takes("("):
            python = self._alternatives(depth + 1)
            self._expect(")")
            return f"({python})"
        return _truth(self._operand())

    def _comparison(self) -> tuple[_Field | _Literal, str | None, _Literal | None]:
        """An operand, or a field that is compared with a literal, whichever stands on the left."""
        left = self._operand()
        operator = self._tokens[self._at].text
        if operator not in _MIRRORED:
            return left, None, None
        self._at += 1
        right = self._operand()
        if isinstance(right, _Literal):
            return left, operator, right
        if isinstance(left, _Literal):
            return right, _MIRRORED[operator], left
        raise _NotUnderstoodError

    def _operand(self) -> _Field | _Literal:
        token = self._next()
        if token.kind == "text":
            return _Literal(token.text[1:-1])
        if token.kind == "number":
            return _Literal(float(token.text))
        if token == ("sign", "-") and self._tokens[self._at].kind == "number":
            return _Literal(-float(self._next().text))
        if token.kind == "keyword" and token.text in _LITERALS:
            return _Literal(_LITERALS[token.text])
        if token.kind != "name":
            raise _NotUnderstoodError
        name = self._field_name()
        if token.text == "event" and name in _TYPES:
            return _Field(f"event.{name}", _TYPES[name])
        if token.text == "user" and self._knows_profile:
            return _Field(f"user.get({name!r})", None)
        raise _NotUnderstoodError

    def _field_name(self) -> str:
        if self._takes("["):
            token = self._next()
            self._expect("]")
            name = token.text[1:-1] if token.kind == "text" else None
        else:
            self._expect(".")
            token = self._next()
            name = token.text if token.kind == "name" else None
        if name is None:
            raise _NotUnderstoodError
        return name

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _takes(self, text: str) -> bool:
        token = self._tokens[self._at]
        found = token.kind in ("keyword", "sign") and token.text == text
        self._at += found
        return found

    def _expect(self, text: str) -> None:
        if not self._takes(text):
            raise _NotUnderstoodError

    def _check_end(self) -> None:
        if self._tokens[self._at] not in _AFTER_A_TERM:
            raise _NotUnderstoodError


def _truth(operand: _Field | _Literal) -> str:
    """Python of whether Lua takes a value for true: all but nil and false, so 0 and "" too."""
    if isinstance(operand, _Literal):
        return str(operand.value is not None and operand.value is not False)
    if operand.type is None:
        return f"({operand.python} is not None and {operand.python} is not False)"
    return operand.python if operand.type is bool else "True"


def _compared(field: _Field | _Literal, operator: str, literal: _Literal) -> str:
    """Python of a comparison that cannot fail in Lua."""
    if isinstance(field, _Literal):
        raise _NotUnderstoodError
    value, kind = literal.value, type(literal.value)
    if operator in ("==", "~="):
        equal = _equal(field, value)
        return equal if operator == "==" else f"not {equal}"
    if kind is float and field.type is float:
        return f"{field.python} {operator} {value!r}"
    raise _NotUnderstoodError


def _equal(field: _Field, value: str | float | bool | None) -> str:
    """Python of equality as in Lua: values of different types never are equal; in Python True is 1."""
    if field.type is not None and field.type is not type(value):
        return "False"
    if value is None or type(value) is bool:
        return f"({field.python} is {value})"
    if type(value) is float and field.type is None:
        return f"(type({field.python}) is not bool and {field.python} == {value!r})"
    return f"({field.python} == {value!r})"
