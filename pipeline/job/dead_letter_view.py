"""Dead letters as documents, for the command and the page."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from pipeline.console import one_line
from pipeline.job.stored_letters import StoredLetter
from pipeline.timestamps import shown_time
from runners.flink.redaction import without_secrets
from transforms.domain.base import exact_json
from transforms.domain.events.dead_letter import MAX_DETAIL
from transforms.domain.events.letter_signature import SIGNED, LetterSigner, letter_id


def letter_line(stored: StoredLetter, signer: LetterSigner) -> str:
    """A letter as a line; with keys, one whose signature is not valid says so."""
    letter = stored.letter
    origin = signer.origin(letter)
    shown = f"  {origin}" if signer.has_keys and origin != SIGNED else ""
    names = ("rule", letter.rule), ("user", stored.user), ("destination", stored.destination)
    subjects = "".join(f"  {name} {value}" for name, value in names if value is not None)
    detail = without_secrets(letter.detail)[:MAX_DETAIL]
    return one_line(f"{stored.place}  {shown_time(stored.at_ms)}  {letter.reason}{shown}{subjects}  {detail}")


def letter_summary(stored: StoredLetter, signer: LetterSigner) -> dict[str, Any]:
    """The fields of a letter that lists show; ``time`` is in ms since the epoch."""
    letter = stored.letter
    return {
        "partition": stored.partition,
        "offset": stored.offset,
        "time": stored.at_ms,
        "id": letter_id(letter),
        "origin": signer.origin(letter),
        "reason": letter.reason,
        "stage": letter.stage,
        "rule": letter.rule,
        "user": stored.user,
        "destination": stored.destination,
        "detail": without_secrets(letter.detail),
    }


def letter_document(stored: StoredLetter, signer: LetterSigner) -> dict[str, Any]:
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
    return {**letter_summary(stored, signer), "record": record, "action": action}


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
