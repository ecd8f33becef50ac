"""Redrive: a control record sends the webhook of a dead letter again, with its id and body.

Where the job has keys, the record carries a signature: who may only write to the control topic cannot have the job send
a webhook that receivers trust.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import orjson

from transforms.domain.base.names import NAME
from transforms.domain.events.dead_letter import LostAction
from transforms.domain.events.letter_signature import LetterSigner, canonical_json
from transforms.domain.webhooks.delivery_queue import Delivery

_Name = Annotated[str, msgspec.Meta(pattern=rf"^{NAME}\Z")]


class _RedrivenAction(msgspec.Struct, forbid_unknown_fields=True):
    """``LostAction.public`` and its rule. ``decided_ms``, ``attempts`` and ``status`` are accepted and ignored."""

    action_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]  # becomes a header
    rule: _Name
    rule_version: Annotated[int, msgspec.Meta(ge=1)]
    action: _Name
    destination: _Name
    user_id: str
    event_id: Annotated[str, msgspec.Meta(min_length=1)]
    body: bytes
    decided_ms: int = 0
    attempts: int = 0
    status: int | None = None


class _Redrive(msgspec.Struct, forbid_unknown_fields=True):
    redrive: str
    action: _RedrivenAction
    signature: str | None = None


_decoder = msgspec.json.Decoder(_Redrive)


def redrive_record(action: LostAction, rule: str, signer: LetterSigner) -> bytes:
    """The control record that sends a lost action of a rule again."""
    record = {"redrive": action.user_id, "action": {"rule": rule, **action.public()}}
    signature = signer.sign_redrive(_signed(action, rule))
    return orjson.dumps(record if signature is None else {**record, "signature": signature})


def _signed(action: LostAction | _RedrivenAction, rule: str) -> bytes:
    """What a signature covers: everything of the record that decides what is sent where."""
    sent = (action.action_id, rule, action.rule_version, action.action, action.destination)
    return canonical_json((*sent, action.user_id, action.event_id, action.body))


def read_redrive(value: bytes, now_ms: int, signer: LetterSigner, coordinates: str = "") -> tuple[str, Delivery]:
    """Read a ``redrive_record``, which needs a valid signature if ``signer`` has keys.

    Args:
        value: the record's value.
        now_ms: processing time.
        signer: checks the signature.
        coordinates: where the record lies, the same each time it is read.

    Returns:
        The user's id, and a new delivery that is decided and due at ``now_ms``.

    Raises:
        ValueError: the bytes are no such record; the message names the field and what is allowed.
    """
    try:
        record = _decoder.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"redrive: {error}") from None
    action = record.action
    if action.user_id != record.redrive:
        raise ValueError(f"redrive: action.user_id is {action.user_id!r}, allowed is {record.redrive!r}, as in redrive")
    if not signer.accepts_redrive(record.signature, _signed(action, action.rule)):
        found = "missing" if record.signature is None else "not valid"
        raise ValueError(f"redrive: signature is {found}, allowed is one by a key of --dead_letters_key")
    delivery = Delivery(
        action.action_id,
        action.destination,
        action.rule,
        action.rule_version,
        action.action,
        action.event_id,
        action.body,
        now_ms,
        now_ms,
        redrive=coordinates,
    )
    return record.redrive, delivery
