"""Which fields of past events a rule's Lua reads, so that histories keep them.

Lua is read as text: what is written as ``row.parameters.sku``, for a name or an expression that is not one of the
inputs. More may be found than is read of rows, which costs some room, and nothing else. A field whose name is computed
(``row[name]``) is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final

from transforms.domain.rules.engine import LOCAL_TIME, PAST_NAMES
from transforms.domain.rules.lua_tokens import Token, all_tokens
from transforms.domain.rules.model import DebugAction, Rule
from transforms.domain.rules.placeholders import placeholders_of, steps_of
from transforms.domain.rules.programs import programs_of

# Every row has these.
_ALWAYS: Final = frozenset(("event_id", "event_name", "timestamp"))
_PAST: Final = frozenset(("history", *PAST_NAMES)) - {"history_since"}
_NO_ROWS: Final = frozenset(("event", "user", "visit", "enrichment", LOCAL_TIME, "math", "string", "table"))
# What follows a field that is only asked whether it is there.
_ASKS: Final = (["and"], ["then"], ["==", "nil"], ["~=", "nil"])


def fields_read(sources: Iterable[str]) -> tuple[str, ...]:
    """The paths of fields that these Lua texts may read of past events, sorted."""
    return tuple(sorted({path for source in sources for path in _fields_of(source)}))


def with_fields_of(names: tuple[str, ...], rules: Iterable[Rule]) -> tuple[str, ...]:
    """The fields that ``--history_fields`` names, and those that rules read."""
    rules = tuple(rules)
    read = fields_read(source for rule in rules for _, source in programs_of(rule))
    bodies = (action.body for rule in rules for action in rule.actions if not isinstance(action, DebugAction))
    return tuple(dict.fromkeys((*names, *read, *(path for body in bodies for path in _fields_of_body(body)))))


def _fields_of_body(body: dict[str, Any] | None) -> Iterator[str]:
    for _, placeholder in placeholders_of(body):
        steps = steps_of(placeholder.path)
        if placeholder.root == "history" and steps and isinstance(steps[0], int):
            names = [str(step) for step in takewhile(lambda step: isinstance(step, str), steps[1:])]
            if names and names[0] not in _ALWAYS:
                yield ".".join(names)


@lru_cache(maxsize=1024)
def _fields_of(source: str) -> frozenset[str]:
    tokens = list(all_tokens(source))
    texts = [token.text for token in tokens]
    if _PAST.isdisjoint(texts):
        return frozenset()
    found: set[tuple[str, str, bool]] = set()  # root, path, whether it is only asked for
    at = 0
    while at < len(texts):
        begin = at
        names, at = _path_after(tokens, texts, at)
        if not names:
            at = begin + 1
            continue
        root = texts[begin] if tokens[begin].is_identifier else ""
        if root not in _NO_ROWS and (root or texts[begin] in (")", "]", "}")):
            is_asked = texts[at : at + 1] in _ASKS or texts[at : at + 2] in _ASKS
            found.add((root, ".".join(names), is_asked))
    paths = {path for root, path, is_asked in found if not (is_asked and _has_longer(found, root, path))}
    for at, text in enumerate(texts[:-2]):
        if text == "of" and texts[at + 1] == "=" and tokens[at + 2].kind == "text":
            paths.add(str(tokens[at + 2].value))
    return frozenset(path for path in paths if path.partition(".")[0] not in _ALWAYS)


def _has_longer(found: set[tuple[str, str, bool]], root: str, path: str) -> bool:
    return any(other == root and longer.startswith(f"{path}.") for other, longer, _ in found)


def _path_after(tokens: list[Token], texts: list[str], at: int) -> tuple[list[str], int]:
    """The names of ``.a["b"].c`` after a token, and where they end."""
    names: list[str] = []
    if not (tokens[at].is_identifier or texts[at] in (")", "]", "}")):
        return names, at + 1
    at += 1
    while at + 1 < len(texts):
        if texts[at] == "." and tokens[at + 1].kind == "name":
            names.append(texts[at + 1])
            at += 2
        elif texts[at] == "[" and tokens[at + 1].kind == "text" and texts[at + 2 : at + 3] == ["]"]:
            names.append(str(tokens[at + 1].value))
            at += 3
        else:
            break
    return names, at
