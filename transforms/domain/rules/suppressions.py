"""Suppressions: control records after which a user gets nothing from a group of rules, or from any rule."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from transforms.domain.base.names import NAME
from transforms.domain.rules.groups import EVERYTHING

SUPPRESS: Final = "suppress"
UNSUPPRESS: Final = "unsuppress"
FOR_GOOD: Final = 0
# The end of year 9999.
LAST_MS: Final = 253_402_300_799_999


@dataclass(frozen=True, slots=True)
class Suppression:
    """What a control record says.

    Attributes:
        group: the name of a group, or ``*`` for all rules.
        until_ms: processing time of its end, ``FOR_GOOD``, or None: it is lifted.
    """

    user_id: str
    group: str
    until_ms: int | None


def suppress_record(user_id: str, group: str, until_ms: int | None = None) -> bytes:
    """The control record after which a user gets nothing from a group until ``until_ms``; None: for good."""
    return orjson.dumps({SUPPRESS: user_id, "group": group, "until": until_ms})


def unsuppress_record(user_id: str, group: str) -> bytes:
    """The control record that lifts what ``suppress_record`` set for the same group."""
    return orjson.dumps({UNSUPPRESS: user_id, "group": group})


def is_group(name: object) -> bool:
    """Whether this is the name of a group, or ``*``."""
    return isinstance(name, str) and (name == EVERYTHING or re.fullmatch(NAME, name) is not None)


def read_suppression(document: dict[str, Any]) -> Suppression:
    """Read a control record.

    Raises:
        ValueError: it is none; the message names the field, the value and what is allowed.
    """
    kind = SUPPRESS if SUPPRESS in document else UNSUPPRESS
    fields = (kind, "group", "until") if kind == SUPPRESS else (kind, "group")
    for name in document:
        if name not in fields:
            raise ValueError(f"{kind}: no such field {name!r}, allowed: {', '.join(fields)}")
    user_id, group, until_ms = document[kind], document.get("group"), document.get("until")
    if not isinstance(user_id, str) or not user_id:
        raise ValueError(f"{kind} is {user_id!r}, allowed is a user id")
    if "group" not in document:
        raise ValueError(f'{kind}: group is missing, allowed is the name of a group, or "*" for all rules')
    if not is_group(group):
        raise ValueError(f'{kind}: group is {group!r}, allowed is the name of a group, or "*" for all rules')
    if kind == UNSUPPRESS:
        return Suppression(user_id, str(group), None)
    if until_ms is None:
        return Suppression(user_id, str(group), FOR_GOOD)
    if type(until_ms) is not int or not 0 < until_ms <= LAST_MS:
        raise ValueError(f"{kind}: until is {until_ms!r}, allowed is a time in ms since the epoch, or null")
    return Suppression(user_id, str(group), until_ms)
