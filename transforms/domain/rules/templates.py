"""Templates of action bodies: JSON whose texts may have placeholders such as ``${event.parameters.sku}``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from transforms.domain.base import exact_json
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.base.field_paths import MISSING, value_at
from transforms.domain.rules import placeholders
from transforms.domain.rules.placeholders import Placeholder, parts_of, steps_of

_MAX_DEPTH: Final = 20


def check(template: Any, levels: int = _MAX_DEPTH) -> None:
    """Check a template of at most ``levels`` levels.

    Raises:
        ValueError: a placeholder that cannot have a value, or too many levels.
    """
    if levels == 0:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(template, str):
        for part in parts_of(template):
            if isinstance(part, Placeholder):
                placeholders.check(part)
    elif isinstance(template, dict):
        for name, inner in template.items():
            if not isinstance(name, str):
                raise ValueError(f"the name {name!r} is no text")
            check(inner, levels - 1)
    elif isinstance(template, list | tuple):
        for inner in template:
            check(inner, levels - 1)


class BodyTooLargeError(EventTriggerError, ValueError):
    """A body that would be larger than its limit; ``nbytes`` is how large it was when that was seen."""

    def __init__(self, nbytes: int, is_whole: bool) -> None:
        self.nbytes = nbytes
        self.size = f"{nbytes} bytes{'' if is_whole else ' or more'}"
        super().__init__(self.size)


class Values:
    """The values of placeholders for one event. An object or a list is encoded once, however often it is named.

    Args:
        roots: a value for each of ``placeholders.ROOTS`` but ``action`` and ``begun``.
    """

    __slots__ = ("_encoded", "_roots")

    def __init__(self, roots: dict[str, Any]) -> None:
        self._roots = roots
        self._encoded: dict[str, tuple[Any, str, int]] = {}

    def with_action(self, action: dict[str, Any], begun: dict[str, Any] | None = None) -> Values:
        """The same values with those of the next action, and the event that began its sequence."""
        self._roots["action"], self._roots["begun"] = action, begun
        return self

    def of(self, placeholder: Placeholder) -> tuple[Any, str, int]:
        """A placeholder's value as what JSON has of it and as text, and the least length of both."""
        path, default = placeholder
        found = self._encoded.get(path)
        if found is not None:
            return found
        root, _, field = path.partition(".")
        if "[" in path:
            root = placeholder.root
            value = _inside(self._roots[root], steps_of(path)) if root in self._roots else MISSING
        elif field:
            value = self._roots[root]
            value = value_at(value, field) if isinstance(value, dict) else MISSING
        else:
            value = self._roots.get(root)
        if default is not None and (value is None or value is MISSING or value == ""):
            return default, default, len(default)
        if value is None or value is MISSING:
            return None, "", 0
        if isinstance(value, str):
            return value, value, len(value)
        json = exact_json.dumps(value)
        found = orjson.Fragment(json), json.decode(), len(json)
        if root not in ("action", "begun"):
            self._encoded[path] = found
        return found


def _inside(value: Any, steps: Sequence[str | int]) -> Any:
    """The value at the end of a path, ``MISSING`` if there is none."""
    for step in steps:
        if isinstance(step, str):
            value = value.get(step, MISSING) if isinstance(value, dict) else MISSING
        elif isinstance(value, list) and -len(value) <= step <= len(value):
            value = value[step - 1 if step > 0 else step]
        else:
            return MISSING
    return value


def render(template: Any, values: Values, limit: int) -> bytes:
    """Fill in a template and encode it as JSON of at most ``limit`` bytes.

    A text that is only a placeholder becomes the value with its type, or null if there is none. A placeholder within a
    text becomes text, or nothing.

    Raises:
        BodyTooLargeError: it would be larger. That is seen while the body is built: a short template can name a long
            value many times.
    """
    body = exact_json.dumps(_Rendering(values, limit).rendered(template))
    if len(body) > limit:
        raise BodyTooLargeError(len(body), is_whole=True)
    return body


class _Rendering:
    """Renders one template and adds up what its texts and values have at least as JSON."""

    __slots__ = ("_limit", "_nbytes", "_values")

    def __init__(self, values: Values, limit: int) -> None:
        self._values = values
        self._limit = limit
        self._nbytes = 0

    def rendered(self, template: Any) -> Any:
        if isinstance(template, str):
            return self._text(template)
        if isinstance(template, dict):
            self._add(sum(map(len, template)))
            return {name: self.rendered(inner) for name, inner in template.items()}
        if isinstance(template, list | tuple):
            self._add(len(template))
            return [self.rendered(inner) for inner in template]
        return template

    def _text(self, template: str) -> Any:
        parts = parts_of(template)
        if len(parts) == 1 and isinstance(parts[0], Placeholder):
            value, _, nbytes = self._values.of(parts[0])
            self._add(nbytes)
            return value
        # The list holds each long text once, however often it is named.
        texts = [self._values.of(part)[1] if isinstance(part, Placeholder) else part for part in parts]
        self._add(sum(map(len, texts)))
        return "".join(texts)

    def _add(self, nbytes: int) -> None:
        self._nbytes += nbytes
        if self._nbytes > self._limit:
            raise BodyTooLargeError(self._nbytes, is_whole=False)
