"""Dead letters as people and programs see them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import orjson

from pipeline.job.redriving import FoundLetter


def letter_summary(found: FoundLetter) -> dict[str, Any]:
    """What there is to say of a letter in a list."""
    letter = found.letter
    return {
        "partition": found.partition,
        "offset": found.offset,
        "time": found.at_ms,
        "reason": letter.reason,
        "stage": letter.stage,
        "rule": letter.rule,
        "user": found.user,
        "destination": found.destination,
        "detail": letter.detail,
    }


def letter_document(found: FoundLetter) -> dict[str, Any]:
    """Everything of a letter, its bytes as people can read them."""
    letter = found.letter
    about = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp_ms,
        "key": _readable(letter.key),
        "value": _readable(letter.value, is_json=True),
    }
    action = None
    if letter.action is not None:
        action = letter.action.public() | {"body": _readable(letter.action.body, is_json=True)}
    return {**letter_summary(found), "record": about, "action": action}


def _readable(value: bytes | None, is_json: bool = False) -> Any:
    """The text of bytes that are text, and JSON if they have to be; otherwise an object with their base64."""
    if value is None:
        return None
    try:
        text = value.decode()
        if is_json:
            orjson.loads(value)
    except ValueError:
        return {"base64": base64.b64encode(value).decode()}
    return text


def letter_fields(prefix: str, document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The document's fields by dotted names; those without a value are left out."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from letter_fields(f"{prefix}{name}.", value)
        elif value is not None:
            yield f"{prefix}{name}", value
