"""Redrive: a control record sends the webhook of a dead letter again, with its id and body."""

from __future__ import annotations

from typing import Annotated

import msgspec
import orjson

from transforms.domain.events.dead_letter import LostAction
from transforms.domain.webhooks.delivery_queue import Delivery

_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,64}\Z")]


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


_decoder = msgspec.json.Decoder(_Redrive)


def redrive_record(action: LostAction, rule: str) -> bytes:
    """The control record that sends a lost action of a rule again."""
    return orjson.dumps({"redrive": action.user_id, "action": {"rule": rule, **action.public()}})


def read_redrive(value: bytes, now_ms: int) -> tuple[str, Delivery]:
    """Read a ``redrive_record``.

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
    )
    return record.redrive, delivery
