"""What is known of the fields of events and profiles: the specification, and a team's own JSON Schema.

The schema of a team describes what rules read::

    {"properties": {"event": {"properties": {"parameters": {…}}}, "user": {"properties": {"country": {…}}}}}

``event`` adds to the specification's fields, ``user`` is the profile. ``additionalProperties: false`` closes either, or
an object inside it. Of branches (``anyOf``, ``oneOf``, ``allOf``, ``if``) the fields of all are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, get_type_hints

from transforms.domain.base.checked_documents import FileError, read_file
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.base.suggestions import did_you_mean
from transforms.domain.base.yaml_documents import YamlError, read_documents
from transforms.domain.events.event import KnownFields
from transforms.domain.rules.engine import LOCAL_TIME
from transforms.domain.rules.lua_reads import ITEM
from transforms.domain.rules.placeholders import CLOSED

Schema = dict[str, Any]

_JSON_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean"}
_TYPES: Final = ("string", "integer", "number", "boolean", "object", "array", "null")
_SCALARS: Final = frozenset(["string", "integer", "number", "boolean", "null"])
_BRANCHES: Final = ("allOf", "anyOf", "oneOf")
_MAX_BYTES: Final = 4 * 1024 * 1024
_MOST_BRANCHES: Final = 1000


def _of_type(kind: Any) -> Schema:
    return {"type": _JSON_TYPES.get(kind, "object")}


# The fields of the specification; events may have others.
EVENT: Final[Schema] = {"properties": {name: _of_type(kind) for name, kind in get_type_hints(KnownFields).items()}}
VISIT: Final[Schema] = {
    "properties": {name: _of_type(kind) for name, kind in zip(CLOSED["visit"], (str, int, int, bool), strict=True)},
    "additionalProperties": False,
}
_LOCAL_TIME: Final[Schema] = {
    "properties": {
        "hour": {"type": "integer", "enum": [*range(24)]},
        "minute": {"type": "integer", "enum": [*range(60)]},
        "weekday": {"type": "integer", "enum": [*range(1, 8)]},
        "date": {"type": "string"},
        "day_of_month": {"type": "integer", "enum": [*range(1, 32)]},
    },
    "additionalProperties": False,
}
_SPECIFICATION: Final = "the specification"
_ENRICHMENT: Final[Schema] = {"type": "string"}  # of a profile


class SchemaError(EventTriggerError, ValueError):
    """A schema that cannot be used; the message names the file, the place, the value and what is allowed."""


class Unknown(NamedTuple):
    """A field that nothing knows.

    Attributes:
        depth: how many names of its path are known; the next one is not.
        known: the names that are known in its place.
        is_closed: whether there can be no others.
    """

    depth: int
    known: tuple[str, ...]
    is_closed: bool


class Leaf(NamedTuple):
    """A field that is known: the JSON types and the values that it may have, None for any."""

    types: frozenset[str] | None
    values: tuple[Any, ...] | None = None


class FieldSchema:
    """Fields of events, profiles and visits by the roots of Lua.

    Args:
        document: a team's JSON Schema, without one only the specification is known.
        source: its name for messages.

    Raises:
        SchemaError: the document is no such schema.
    """

    def __init__(self, document: Any = None, source: str = _SPECIFICATION) -> None:
        self.source = source
        self.is_given = document is not None
        self._document = {} if document is None else document
        if document is not None:
            _check(document, source)
        own = self._document.get("properties", {})
        self.knows_user = "user" in own
        user = {"allOf": [own["user"], {"properties": {"enrichment": _ENRICHMENT}}]} if self.knows_user else {}
        event = {"allOf": [own["event"], _without(EVENT, self._flat([own["event"]]))]} if "event" in own else EVENT
        self._roots: dict[str, Schema] = {
            "event": event,
            "begun": event,
            "user": user,
            "visit": VISIT,
            "history": {"type": "array", "items": event},
            LOCAL_TIME: _LOCAL_TIME,
        }

    def source_of(self, root: str) -> str:
        """What describes the fields of a root, for messages."""
        return _SPECIFICATION if root in ("visit", LOCAL_TIME) else self.source

    def find(self, root: str, path: Sequence[str]) -> Leaf | Unknown | None:
        """What is known of a field; None: it may be there or not, nothing knows."""
        nodes = self._flat([self._roots.get(root, {})])
        for number, name in enumerate(path):
            rest = ".".join(path[number:])
            inner = self._inner(nodes, name)
            if not inner and number < len(path) - 1 and (inner := self._inner(nodes, rest)):
                return self._leaf(self._flat(inner))  # a field that has dots in its own name
            if not inner:
                return self._unknown(nodes, name, number)
            nodes = self._flat(inner)
        return self._leaf(nodes)

    def _inner(self, nodes: list[Schema], name: str) -> list[Any]:
        if name == ITEM:
            return [node["items"] for node in nodes if isinstance(node.get("items"), dict)]
        found = [node["properties"][name] for node in nodes if name in node.get("properties", {})]
        for node in nodes:
            patterns = node.get("patternProperties", {})
            found += [inner for pattern, inner in patterns.items() if re.search(pattern, name)]
        others = [node["additionalProperties"] for node in nodes if isinstance(node.get("additionalProperties"), dict)]
        return found or others

    def _unknown(self, nodes: list[Schema], name: str, depth: int) -> Unknown | None:
        if name == ITEM:
            return None
        known = tuple(dict.fromkeys(known for node in nodes for known in node.get("properties", {})))
        is_closed = any(
            node.get("additionalProperties") is False or node.get("unevaluatedProperties") is False for node in nodes
        )
        types = self._leaf(nodes).types
        is_closed = is_closed or (types is not None and types <= _SCALARS | {"array"})
        return Unknown(depth, known, is_closed) if known or is_closed else None

    def _flat(self, schemas: list[Any]) -> list[Schema]:
        """The schemas, those that they refer to, and all of their branches."""
        flat: list[Schema] = []
        waiting = list(schemas)
        seen: set[str] = set()
        while waiting and len(flat) < _MOST_BRANCHES:
            schema = waiting.pop(0)
            if not isinstance(schema, dict):
                continue
            flat.append(schema)
            waiting += [inner for branch in _BRANCHES for inner in schema.get(branch, ())]
            waiting += [schema[branch] for branch in ("if", "then", "else") if branch in schema]
            reference = schema.get("$ref")
            if reference is not None and reference not in seen:
                seen.add(reference)
                waiting.append(_referred(self._document, reference))
        return flat

    def _leaf(self, nodes: list[Schema]) -> Leaf:
        types: set[str] = set()
        values: list[Any] = []
        has_any_type = has_any_value = False
        for node in nodes:
            if "$ref" in node or any(branch in node for branch in _BRANCHES):
                continue  # its branches say it
            allowed = [node["const"]] if "const" in node else node.get("enum")
            has_any_value = has_any_value or allowed is None
            values += allowed or ()
            kinds = node.get("type")
            if kinds is None and allowed is not None:
                kinds = [_type_of(value) for value in allowed]
            has_any_type = has_any_type or kinds is None
            types |= set([kinds] if isinstance(kinds, str) else kinds or ())
        return Leaf(
            None if has_any_type or not types else frozenset(types),
            None if has_any_value or not values else tuple(values),
        )


def _without(spec: Schema, own: list[Schema]) -> Schema:
    """The specification's fields that a team's schema does not describe itself."""
    described = {name for node in own for name in node.get("properties", {})}
    return {"properties": {name: schema for name, schema in spec["properties"].items() if name not in described}}


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


# Reading


def read_schema(file: Path) -> FieldSchema:
    """Read a team's schema: JSON, or YAML.

    Raises:
        SchemaError: it cannot be used.
    """
    try:
        text = read_file(file, _MAX_BYTES).decode("utf-8-sig")
    except (FileError, UnicodeDecodeError) as error:
        raise SchemaError(f"{file}: {error}") from None
    try:
        return FieldSchema(json.loads(text), str(file))
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        documents = list(read_documents(text))
    except YamlError as error:
        raise SchemaError(f"{file}:{error.line}: neither JSON nor YAML: {error}") from None
    if len(documents) != 1:
        raise SchemaError(f"{file}: {len(documents)} documents, allowed is one JSON Schema")
    return FieldSchema(documents[0].value, str(file))


def _check(document: Any, source: str) -> None:
    if not isinstance(document, dict):
        raise SchemaError(f"{source}: a {type(document).__name__}, allowed is a JSON Schema, which is an object")
    own = document.get("properties")
    allowed = 'allowed is {"properties": {"event": {…}, "user": {…}}}, one of them at least'
    if not isinstance(own, dict) or not own:
        raise SchemaError(f"{source}: properties is {own!r}, {allowed}")
    for name in own:
        if name not in ("event", "user"):
            raise SchemaError(
                f"{source}: properties.{name}: no such part{did_you_mean(name, ('event', 'user'))}, {allowed}"
            )
        for place, message in _faults(own[name], f"properties.{name}", document):
            raise SchemaError(f"{source}: {place} {message}")
    for group in ("$defs", "definitions"):
        inner = document.get(group, {})
        if not isinstance(inner, dict):
            raise SchemaError(f"{source}: {group} is {inner!r}, allowed is an object of schemas")
        for name, schema in inner.items():
            for place, message in _faults(schema, f"{group}.{name}", document):
                raise SchemaError(f"{source}: {place} {message}")


def _faults(schema: Any, place: str, document: Schema) -> Iterator[tuple[str, str]]:
    """Place and message of what this module would misread."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield place, f"is {schema!r}, allowed is a schema"
        return
    kinds = schema.get("type", [])
    for kind in [kinds] if not isinstance(kinds, list) else kinds:
        if kind not in _TYPES:
            yield f"{place}.type", f"is {kind!r}, allowed: {', '.join(_TYPES)}"
    if not isinstance(schema.get("enum", []), list):
        yield f"{place}.enum", f"is {schema['enum']!r}, allowed is a list"
    reference = schema.get("$ref")
    if reference is not None and _referred(document, reference) is None:
        yield f"{place}.$ref", f"is {reference!r}, allowed is a place in this file, as #/$defs/NAME"
    for word in ("properties", "patternProperties"):
        inner = schema.get(word, {})
        if not isinstance(inner, dict):
            yield f"{place}.{word}", f"is {inner!r}, allowed is an object of schemas"
            continue
        for name, below in inner.items():
            if word == "patternProperties" and not _is_pattern(name):
                yield f"{place}.{word}", f"{name!r} is no regular expression"
            yield from _faults(below, f"{place}.{word}.{name}", document)
    for word in _BRANCHES:
        inner = schema.get(word, [])
        if not isinstance(inner, list):
            yield f"{place}.{word}", f"is {inner!r}, allowed is a list of schemas"
            continue
        for number, below in enumerate(inner):
            yield from _faults(below, f"{place}.{word}.{number}", document)
    for word in ("additionalProperties", "items", "if", "then", "else"):
        if word in schema and not isinstance(schema[word], list):
            yield from _faults(schema[word], f"{place}.{word}", document)


def _is_pattern(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _referred(document: Schema, reference: Any) -> Any:
    """The schema at a place of the same file, None if there is none."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    value: Any = document
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            return None
    return value
