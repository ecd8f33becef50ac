"""Dead letters as documents, for the command and the page."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from pipeline.job.redriving import StoredLetter
from transforms.domain.base import exact_json


def letter_summary(stored: StoredLetter) -> dict[str, Any]:
    """The fields of a letter that lists show; ``time`` is in ms since the epoch."""
    letter = stored.letter
    return {
        "partition": stored.partition,
        "offset": stored.offset,
        "time": stored.at_ms,
        "reason": letter.reason,
        "stage": letter.stage,
        "rule": letter.rule,
        "user": stored.user,
        "destination": stored.destination,
        "detail": letter.detail,
    }


def letter_document(stored: StoredLetter) -> dict[str, Any]:
    """All fields of a letter; bytes as text if they are text, otherwise as base64."""
    letter = stored.letter
    record = {
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
    return {**letter_summary(stored), "record": record, "action": action}


def _readable(value: bytes | None, is_json: bool = False) -> Any:
    """The bytes as text; as ``{"base64": …}`` if they are not UTF-8, or with ``is_json`` no JSON."""
    if value is None:
        return None
    try:
        text = value.decode()
        if is_json:
            exact_json.loads(value)
    except ValueError:
        return {"base64": base64.b64encode(value).decode()}
    return text


def letter_fields(prefix: str, document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The document's fields that have a value, with dotted names that begin with ``prefix``."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from letter_fields(f"{prefix}{name}.", value)
        elif value is not None:
            yield f"{prefix}{name}", value
