"""Actions of rules that fire: their ids and their bodies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson
from pydantic import TypeAdapter

from transforms.domain.base import exact_json
from transforms.domain.rules.model import Action
from transforms.domain.users.user import ENRICHMENT, UserState
from transforms.domain.users.visit import Visit


@dataclass(frozen=True, slots=True)
class FiredAction:
    """One action of one rule for one event.

    Attributes:
        body: the enriched event or the rule's own body, JSON.
        rule_set: number of the rule set.
        at_ms: event time of the firing (docs/rules.md); 0 if quiet hours held the action under an earlier release.
        expires_ms: processing time from which on it is not sent any more; 0: never.
        group: the rule's group, "" without one.
    """

    action_id: str
    user_id: str
    rule: str
    rule_version: int
    action: Action
    body: bytes
    rule_set: int = 0
    at_ms: int = 0
    expires_ms: int = 0
    group: str = ""


def action_id(user_id: str, event_id: str, rule: str, version: int, action: str) -> str:
    """Compute an action's id: the same on every retry and replay, different for each version of the rule."""
    identity = msgspec.msgpack.encode([user_id, event_id, rule, version, action])
    return hashlib.blake2b(identity, digest_size=16).hexdigest()


def enriched_event(fields: dict[str, Any], visit: Visit | None, user: UserState, history: bool = True) -> bytes:
    """Encode the default body of actions (docs/spec/event-dispatch.md, "Enriched Event Structure") as JSON.

    Only for a profile with a field ``enrichment`` of its own it has a key more than the specification: ``enrichment``.

    Args:
        fields: all fields of the event.
        visit: the visit with the event counted.
        user: the user's state before the event.
        history: whether the body has ``eventHistory``.
    """
    body: dict[str, Any] = {
        "event": fields,
        "userProfile": user.written_profile(),
        "currentVisit": None if visit is None else visit.public(),
    }
    if history:
        body["eventHistory"] = orjson.Fragment(user.history.public_json())
    if user.has_enrichment_field:
        body[ENRICHMENT] = user.enrichment
    return exact_json.dumps(body)


# The destination of actions that are written to a file: no topic name has a colon.
FILE: Final = "file:actions"


def action_line(fired: FiredAction, time_ms: int) -> bytes:
    """Encode an action as a JSON line of the actions file; ``time_ms`` is processing time."""
    return orjson.dumps(
        {
            "time": time_ms,
            "action_id": fired.action_id,
            "rule": fired.rule,
            "version": fired.rule_version,
            "action": fired.action.name,
            "type": fired.action.type,
            "user_id": fired.user_id,
            "body": orjson.Fragment(fired.body),
        }
    )


_action_decoder: TypeAdapter[Action] = TypeAdapter(Action)


def encode_action(action: Action) -> bytes:
    """Encode an action's definition for the journal."""
    return action.model_dump_json().encode()


def decode_action(stored: bytes) -> Action:
    """Decode what ``encode_action`` wrote."""
    return _action_decoder.validate_json(stored)
