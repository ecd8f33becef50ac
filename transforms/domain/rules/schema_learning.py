"""Learns a JSON Schema of events and profiles from what was recorded, as ``field_schema`` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from transforms.domain.rules.field_schema import EVENT, Schema

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# An object with more names than this has names that are data, such as ids.
_MOST_NAMES: Final = 200
_DEEPEST: Final = 10


class LearnedSchema:
    """The fields of all events and profiles that it was shown, and their types. It closes nothing."""

    def __init__(self) -> None:
        self._event = _Node()
        self._user = _Node()

    def add_event(self, fields: Mapping[str, Any]) -> None:
        """Learn from an event."""
        own = {name: value for name, value in fields.items() if name not in EVENT["properties"] or name == "parameters"}
        self._event.add(own, 0)

    def add_profile(self, profile: Mapping[str, Any]) -> None:
        """Learn from a profile."""
        self._user.add(profile, 0)

    def document(self) -> Schema:
        """The schema of what was learned so far."""
        nodes = {"event": self._event, "user": self._user}
        return {
            "$schema": _DIALECT,
            "properties": {name: node.schema() for name, node in nodes.items() if node.types} or {"event": {}},
        }


class _Node:
    """What the values of one field have in common."""

    __slots__ = ("inner", "is_map", "items", "types")

    def __init__(self) -> None:
        self.types: set[str] = set()
        self.inner: dict[str, _Node] = {}
        self.items: _Node | None = None
        self.is_map = False

    def add(self, value: Any, depth: int) -> None:
        if isinstance(value, Mapping):
            self.types.add("object")
            if depth < _DEEPEST:
                self._add_fields(value, depth + 1)
        elif isinstance(value, list):
            self.types.add("array")
            if depth < _DEEPEST and value:
                self.items = self.items or _Node()
                for item in value:
                    self.items.add(item, depth + 1)
        elif value is None:
            self.types.add("null")
        elif isinstance(value, bool):
            self.types.add("boolean")
        elif isinstance(value, int | float):
            self.types.add("integer" if isinstance(value, int) else "number")
        else:
            self.types.add("string")

    def _add_fields(self, fields: Mapping[str, Any], depth: int) -> None:
        for name, value in fields.items():
            if not self.is_map and name not in self.inner and len(self.inner) == _MOST_NAMES:
                self._become_map()
            node = self.inner.setdefault("" if self.is_map else name, _Node())
            node.add(value, depth)

    def _become_map(self) -> None:
        of_all = _Node()
        for node in self.inner.values():
            of_all.join(node)
        self.inner, self.is_map = {"": of_all}, True

    def join(self, other: _Node) -> None:
        """Learn all that another node has learned."""
        self.types |= other.types
        if other.is_map and not self.is_map:
            self._become_map()
        for name, node in other.inner.items():
            self.inner.setdefault("" if self.is_map else name, _Node()).join(node)
        if other.items is not None:
            self.items = self.items or _Node()
            self.items.join(other.items)

    def schema(self) -> Schema:
        types = sorted(self.types - ({"integer"} if "number" in self.types else set()))
        schema: Schema = {"type": types[0] if len(types) == 1 else types} if types else {}
        if self.is_map:
            schema["additionalProperties"] = self.inner[""].schema()
        elif self.inner:
            schema["properties"] = {name: self.inner[name].schema() for name in sorted(self.inner)}
        if self.items is not None:
            schema["items"] = self.items.schema()
        return schema
