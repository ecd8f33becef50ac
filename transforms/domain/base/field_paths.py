"""Names of fields, wherever rules and options name one: ``platform``, or a path like ``parameters.category``.

A field that itself has dots in its name comes first: ``{"address.city": 1}`` has the field ``address.city``, and then
nothing inside ``address`` counts.
"""

from __future__ import annotations

import functools
from typing import Any, Final

# What a document without the field has there; a field may be null.
MISSING: Final[Any] = object()


def value_at(document: dict[str, Any], path: str) -> Any:
    """Return the value of a field, ``MISSING`` without one."""
    if path in document:
        return document[path]
    return MISSING if "." not in path else _inner_value(document, path.split("."))


def _inner_value(document: dict[str, Any], names: list[str]) -> Any:
    value: Any = document
    for name in names:
        if type(value) is not dict or name not in value:
            return MISSING
        value = value[name]
    return value


class FieldSelection:
    """Some fields of a document, each where the document has it.

    Of ``{"a": {"b": 1, "c": 2}}`` the field ``a.b`` is ``{"a": {"b": 1}}``.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        # A field comes before the fields inside it, so that the whole of it is not taken apart.
        self._paths = sorted((name.split("."), name) for name in names if "." in name)

    def of(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that the document has; their values are the document's own objects."""
        selected = {name: document[name] for name in self._names if name in document}
        for names, path in self._paths:
            if path in selected or (value := _inner_value(document, names)) is MISSING:
                continue
            inside, source = selected, document
            for name in names[:-1]:
                source = source[name]
                inside = inside.setdefault(name, {})
                if inside is source:
                    break  # the whole of it is selected
            else:
                inside[names[-1]] = value
        return selected


@functools.lru_cache(maxsize=100)
def selection(names: tuple[str, ...]) -> FieldSelection:
    """Return the selection of these fields; the same object for the same names, as every step asks for it."""
    return FieldSelection(names)
