"""Checks the names of fields in a rule (its Lua, ``match``, ``time_zone`` and placeholders) against what is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from transforms.domain.base.suggestions import misspelt, nearest
from transforms.domain.rules.cases import Case
from transforms.domain.rules.field_schema import FieldSchema, Leaf, Unknown
from transforms.domain.rules.lua_reads import ITEM, Read, reads_of
from transforms.domain.rules.model import DebugAction, Rule
from transforms.domain.rules.placeholders import CLOSED, placeholders_of, steps_of
from transforms.domain.rules.programs import path_of, programs_of

_Path = tuple[str | int, ...]
_KINDS: Final = {
    "string": "a text",
    "integer": "a number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "nil",
}


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        at: path of the rule's field in its document.
        line: line of the field's text, from 1; None if the text is no Lua.
        message: about it.
        is_certain: whether the field can have no value, so that the next release refuses the rule.
    """

    at: _Path
    line: int | None
    message: str
    is_certain: bool = False


class Cases:
    """The fields that tests give: their authors know that events and profiles have them."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self._fields: dict[str, Any] = {"event": {}, "user": {}}
        for case in cases:
            for fields in (*(given.fields for given in case.events), *(past.fields for past in case.history)):
                _merge(self._fields["event"], fields)
            if isinstance(case.profile, dict):
                _merge(self._fields["user"], case.profile)

    def names(self, root: str, path: tuple[str, ...]) -> tuple[str, ...]:
        """The fields of an object."""
        fields: Any = self._fields.get("event" if root in ("history", "begun") else root, {})
        for name in path:
            fields = fields.get(name, {}) if name != ITEM else fields
        return tuple(fields)


def _merge(into: dict[str, Any], value: dict[str, Any]) -> None:
    for name, inner in value.items():
        below = into.setdefault(name, {})
        for item in inner if isinstance(inner, list) else [inner]:
            if isinstance(item, dict):
                _merge(below, item)


def findings(rule: Rule, schema: FieldSchema, cases: Cases) -> Iterator[Finding]:
    """What is wrong with the names of fields in a rule, in the order of its fields; each once a field."""
    for at, read, is_lua in _reads(rule):
        line = read.line if is_lua else None
        found = schema.find(read.root, read.path)
        if isinstance(found, Leaf):
            message = _never_equal(read, found, schema)
            if message is not None:
                yield Finding(at, line, message)
        else:
            yield from _unknown(at, line, read, found, schema, cases)


def _reads(rule: Rule) -> Iterator[tuple[_Path, Read, bool]]:
    for name, source in programs_of(rule):
        at = path_of(name)
        seen = set()
        for read in reads_of(source):
            if (key := read._replace(line=0)) not in seen:
                seen.add(key)
                yield at, read, True
    match = None if rule.sequence is None else rule.sequence.match
    if isinstance(match, str):
        yield ("sequence", "match"), Read("event", _names(match)), False
    elif match is not None:
        yield ("sequence", "match", "begun"), Read("event", _names(match.begun)), False
        yield ("sequence", "match", "followed"), Read("event", _names(match.followed)), False
    if rule.time_zone.profile_field is not None and "time_zone" in rule.model_fields_set:
        path = tuple(rule.time_zone.profile_field.split("."))
        if "profile_field" in rule.time_zone.model_fields_set:
            yield ("time_zone", "profile_field"), Read("user", path), False
    for number, action in enumerate(rule.actions):
        if not isinstance(action, DebugAction) and action.body is not None:
            for inner, placeholder in placeholders_of(action.body, ("actions", number, "body")):
                path = tuple(ITEM if isinstance(step, int) else step for step in steps_of(placeholder.path))
                if placeholder.root not in CLOSED or (placeholder.root == "history" and path[:1] == (ITEM,)):
                    yield inner, Read(placeholder.root, path), False


def _names(path: str) -> tuple[str, ...]:
    """The names of a path, with ``ITEM`` for the items of a list."""
    return tuple(path.replace("[]", f".{ITEM}").split("."))


def _never_equal(read: Read, field: Leaf, schema: FieldSchema) -> str | None:
    """Why a comparison with a literal is always the same, or fails; None if it is none such."""
    literal, kinds = read.literal, field.types
    if read.operator is None or literal is None:
        return None
    kind = {str: "string", float: "number", bool: "boolean"}[type(literal)]
    fits = kinds is None or kind in kinds or (kind == "number" and "integer" in kinds)
    result = "fails" if read.operator not in ("==", "~=") else f"is always {str(read.operator == '~=').lower()}"
    shown = f"{read.shown} {read.operator} {_lua(literal)}"
    if not fits:
        has = " or ".join(dict.fromkeys(_KINDS[name] for name in sorted(kinds or ())))
        return f"{shown} {result}: by {schema.source_of(read.root)} {read.shown} is {has}"
    if field.values is not None and result != "fails" and literal not in field.values:
        texts = [value for value in field.values if isinstance(value, str)]
        near = nearest(literal, texts) if isinstance(literal, str) else None
        hint = "" if near is None else f"; did you mean {near!r}?"
        return f"{shown} {result}: not among the values of {schema.source_of(read.root)}{hint}"
    return None


def _lua(literal: str | float | bool) -> str:
    if isinstance(literal, bool):
        return str(literal).lower()
    return f'"{literal}"' if isinstance(literal, str) else f"{literal:g}"


def _unknown(
    at: _Path, line: int | None, read: Read, found: Unknown | None, schema: FieldSchema, cases: Cases
) -> Iterator[Finding]:
    if found is None:
        yield from _like_no_test(at, line, read, schema, cases)
        return
    place, name = read.path[: found.depth], read.path[found.depth]
    near = nearest(name, found.known)
    hint = "" if near is None else f"; did you mean {near!r}?"
    shown = Read(read.root, (*place, name)).shown
    given = name in cases.names(read.root, place)
    if found.is_closed:
        allowed = f", allowed: {', '.join(found.known[:20])}" if found.known and near is None else ""
        owner = Read(read.root, place).shown
        yield Finding(at, line, f"reads {shown}: {owner} has no such field{hint}{allowed}", is_certain=True)
    elif not given or misspelt(name, found.known) is not None:
        more = "" if near is not None or schema.is_given else ", and no test gives it a value"
        yield Finding(at, line, f"reads {shown}: {schema.source} has no such field{hint}{more}")


def _like_no_test(at: _Path, line: int | None, read: Read, schema: FieldSchema, cases: Cases) -> Iterator[Finding]:
    """Of a field that nothing describes: whether it is like one that tests give a value, but is none."""
    if schema.is_given and (read.root != "user" or schema.knows_user):
        return
    for depth, name in enumerate(read.path):
        given = cases.names(read.root, read.path[:depth])
        near = None if name in given or name == ITEM else nearest(name, given)
        if near is not None:
            shown = Read(read.root, read.path[: depth + 1]).shown
            yield Finding(at, line, f"reads {shown}, which no test gives a value; did you mean {near!r}?")
            return
