"""Which fields a Lua text reads, found without running it, and what it compares them with.

Names of a script's own are followed where it is certain what they are: ``local cart = event.parameters.cart``,
``for _, row in ipairs(history)``, ``where=function(e)``. What is not understood is no read, so that no
check is wrong about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from transforms.domain.rules.engine import LOCAL_TIME
from transforms.domain.rules.lua_tokens import COMPARISONS, END, Token, after_brackets, tokens_of
from transforms.domain.rules.past_calls import PastCall, past_calls

# What a script is given.
INPUTS: Final = ("event", "user", "visit", "history", LOCAL_TIME)
ITEM: Final = "[]"  # in paths: an item of a list, or a field whose name is computed
_PAST_EVENT: Final[tuple[str, tuple[str, ...]]] = ("history", (ITEM,))
_MIRRORED: Final = {"==": "==", "~=": "~=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ARITHMETIC: Final = frozenset(["+", "-", "*", "/", "%", "^", "..", "#", "not"])


class Read(NamedTuple):
    """A field that is read.

    Attributes:
        root: one of ``INPUTS``, or ``begun``.
        path: the names below it.
        line: line of the text, from 1.
        operator: the comparison with a literal, as if the field stood on its left; None without one.
        literal: what it is compared with.
    """

    root: str
    path: tuple[str, ...]
    line: int = 1
    operator: str | None = None
    literal: str | float | bool | None = None

    @property
    def shown(self) -> str:
        """The field as it is written in Lua."""
        return self.root + "".join("[…]" if name == ITEM else f".{name}" for name in self.path)


def reads_of(source: str) -> list[Read]:
    """The fields that a Lua text reads, in the order of the text."""
    return list(_Reader(source).reads())


def faults(source: str) -> Iterator[tuple[int, str]]:
    """Line and message of each call of ``count``, ``last`` and ``distinct`` that fails whenever it is reached."""
    for call in _Reader(source).calls.values():
        yield from call.faults()


class _Reader:
    def __init__(self, source: str) -> None:
        self._tokens = tokens_of(source)
        self._after = after_brackets(self._tokens)
        self._declared = Counter(self._declarations())
        calls = past_calls(self._tokens, self._after)
        self.calls: dict[int, PastCall] = {call.at: call for call in calls if not self._declared[call.function]}
        self._known: dict[str, tuple[str, tuple[str, ...]]] = {
            name: (name, ()) for name in (*INPUTS, "begun") if not self._declared[name]
        }
        # The parameter of each ``where`` is an event of the history, if the script has no other use for its name.
        of_where = Counter(self._parameters_of_where())
        self._known |= {name: _PAST_EVENT for name, times in of_where.items() if self._declared[name] == times}

    def reads(self) -> Iterator[Read]:
        for at, token in enumerate(self._tokens):
            self._learn(at)
            if at in self.calls:
                yield from self._reads_of_call(self.calls[at])
            if token.is_identifier and token.text in self._known and self._is_value(at):
                root, path = self._known[token.text]
                more, end = self._names(at + 1)
                if more:
                    yield Read(root, path + more, token.line, *self._comparison(at, end))

    def _reads_of_call(self, call: PastCall) -> Iterator[Read]:
        root, item = _PAST_EVENT
        name, path = call.text_of("event"), call.text_of("of")
        if name is not None:
            yield Read(root, (*item, "event_name"), call.line, "==", name)
        if path is not None:
            yield Read(root, (*item, *path.split(".")), call.line)
        more, end = self._names(call.end)
        if call.function == "last" and more:
            yield Read(root, item + more, call.line, *self._comparison(call.at, end))

    def _parameters_of_where(self) -> Iterator[str]:
        for at, token in enumerate(self._tokens):
            begins = [self._token(at + number).text for number in range(1, 4)] == ["=", "function", "("]
            if token.text == "where" and begins and self._token(at + 4).is_identifier:
                yield self._token(at + 4).text

    def _token(self, at: int) -> Token:
        return self._tokens[at] if 0 <= at < len(self._tokens) else END

    def _is_value(self, at: int) -> bool:
        """Whether a name is no field (``x.event``), no key of a table and nothing that gets a value."""
        return self._token(at - 1).text not in (".", ":", "goto") and self._token(at + 1).text != "="

    def _declarations(self) -> Iterator[str]:
        """Each name that the script declares, and each again that it assigns to."""
        for at, token in enumerate(self._tokens):
            before = self._token(at - 1).text
            if token.text in ("local", "for"):
                yield from self._names_from(at + 1)
            elif token.text == "function":
                at += 1
                if self._token(at).is_identifier and self._token(at + 1).text == "(":
                    yield self._token(at).text
                while self._token(at).text not in ("(", ""):
                    at += 1
                yield from self._names_from(at + 1)
            elif (
                token.is_identifier and self._token(at + 1).text == "=" and before not in (".", ":", "{", ",", "local")
            ):
                yield token.text

    def _names_from(self, at: int) -> Iterator[str]:
        while self._token(at).is_identifier:
            yield self._token(at).text
            if self._token(at + 1).text != ",":
                return
            at += 2

    def _learn(self, at: int) -> None:
        """Remember a name that is declared at ``at`` and that is a field, or an item of a list."""
        if self._token(at).text == "local" and self._token(at + 2).text == "=":
            name, begin, item = self._token(at + 1), at + 3, False
        elif self._token(at).text == "in" and self._token(at + 1).text == "ipairs" and self._token(at - 2).text == ",":
            name, begin, item = self._token(at - 1), at + 3, True
        else:
            return
        value = self._token(begin)
        if self._declared[name.text] != 1 or not value.is_identifier:
            return
        call = self.calls.get(begin)
        known = _PAST_EVENT if call is not None and call.function == "last" else self._known.get(value.text)
        if known is None:
            return
        root, path = known
        more, end = self._names(begin + 1 if call is None else call.end)
        after = self._token(end)
        is_whole = after.text in (";", ")", "or", "") or (after.kind == "name" and after.text not in ("and", "in"))
        if is_whole:
            self._known[name.text] = (root, path + more + ((ITEM,) if item else ()))

    def _names(self, at: int) -> tuple[tuple[str, ...], int]:
        """The names of fields after a value, and the number of the token after them."""
        names: list[str] = []
        while True:
            if self._token(at).text == "." and self._token(at + 1).kind == "name":
                names.append(self._token(at + 1).text)
                at += 2
            elif self._token(at).text == "[" and self._token(at).kind == "sign":
                end = self._after[at]
                inside = self._token(at + 1)
                is_name = inside.kind == "text" and end == at + 3
                names.append(str(inside.value) if is_name else ITEM)
                at = end
            else:
                return tuple(names), at

    def _comparison(self, begin: int, end: int) -> tuple[str | None, str | float | bool | None]:
        """The comparison of the field at ``begin`` up to ``end`` with a literal."""
        before, after = self._token(begin - 1), self._token(end)
        if before.text in _ARITHMETIC:
            return None, None
        literal = self._token(end + 1)
        if after.text in COMPARISONS and literal.is_literal and self._token(end + 2).text not in _ARITHMETIC - {"not"}:
            return after.text, literal.value
        literal = self._token(begin - 2)
        is_first = self._token(begin - 3).text not in _ARITHMETIC
        if (
            before.text in COMPARISONS
            and literal.is_literal
            and is_first
            and after.text not in _ARITHMETIC | {":", "("}
        ):
            return _MIRRORED[before.text], literal.value
        return None, None
