"""Templates of action bodies: JSON whose texts may have placeholders such as ``${event.parameters.sku}``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from transforms.domain.base import exact_json
from transforms.domain.base.field_paths import MISSING, value_at

# The first names of placeholders: the enriched event by the names that filters use, and the action.
ROOTS: Final = ("event", "user", "visit", "history", "enrichment", "action")

_PLACEHOLDER: Final = re.compile(r"\$\{([^}]*)\}")
_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,8}")
_MAX_DEPTH: Final = 20


def check(template: Any, levels: int = _MAX_DEPTH) -> None:
    """Check a template of at most ``levels`` levels.

    Raises:
        ValueError: a placeholder that cannot have a value, or too many levels.
    """
    if levels == 0:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(template, str):
        for path in _PLACEHOLDER.findall(template):
            if not _PATH.fullmatch(path) or path.partition(".")[0] not in ROOTS:
                raise ValueError(f"${{{path}}} is no path of names that begins with one of {', '.join(ROOTS)}")
    elif isinstance(template, dict):
        for name, inner in template.items():
            if not isinstance(name, str):
                raise ValueError(f"the name {name!r} is no text")
            check(inner, levels - 1)
    elif isinstance(template, list | tuple):
        for inner in template:
            check(inner, levels - 1)


def render(template: Any, values: dict[str, Any]) -> bytes:
    """Fill in a template and encode it as JSON; ``values`` has a value for each of ``ROOTS``.

    A text that is only a placeholder becomes the value with its type, or null if there is none. A placeholder within a
    text becomes text, or nothing.
    """
    return exact_json.dumps(_rendered(template, values))


def _rendered(template: Any, values: dict[str, Any]) -> Any:
    if isinstance(template, str):
        return _text(template, values)
    if isinstance(template, dict):
        return {name: _rendered(inner, values) for name, inner in template.items()}
    if isinstance(template, list | tuple):
        return [_rendered(inner, values) for inner in template]
    return template


def _text(template: str, values: dict[str, Any]) -> Any:
    parts = _parts(template)
    if len(parts) == 3 and not parts[0] and not parts[2]:
        return _value(parts[1], values)
    # Texts and placeholder paths alternate.
    return "".join(part if number % 2 == 0 else _as_text(_value(part, values)) for number, part in enumerate(parts))


@lru_cache(maxsize=4096)
def _parts(template: str) -> tuple[str, ...]:
    return tuple(_PLACEHOLDER.split(template))


def _value(path: str, values: dict[str, Any]) -> Any:
    root, _, field = path.partition(".")
    value = values[root]
    if field:
        value = value_at(value, field) if isinstance(value, dict) else MISSING
    return None if value is MISSING else value


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else exact_json.dumps(value).decode()
