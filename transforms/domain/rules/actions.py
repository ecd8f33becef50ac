"""What a rule does when it fires: the action's identity and its body."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson
from pydantic import TypeAdapter

from transforms.domain.rules import templates
from transforms.domain.rules.model import Action, Rule
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit


@dataclass(frozen=True, slots=True)
class FiredAction:
    """One action of one rule for one event: ``body`` is the enriched event as JSON, ``rule_set`` the set's number.

    ``at_ms`` is the time of the firing, by the event (docs/rules.md); 0 if an earlier release held it.
    """

    action_id: str
    user_id: str
    rule: str
    rule_version: int
    action: Action
    body: bytes
    rule_set: int = 0
    at_ms: int = 0


def action_id(user_id: str, event_id: str, rule: str, version: int, action: str) -> str:
    """The action's identity: the same on every retry and replay, another for another version of the rule."""
    identity = msgspec.msgpack.encode([user_id, event_id, rule, version, action])
    return hashlib.blake2b(identity, digest_size=16).hexdigest()


def enriched_event(fields: dict[str, Any], visit: Visit | None, user: UserState, history: bool = True) -> bytes:
    """The body that rules' actions send (spec/event-dispatch.md, "Enriched Event Structure"), of an event's fields."""
    body: dict[str, Any] = {
        "event": fields,
        "userProfile": user.written_profile(),
        "currentVisit": None if visit is None else visit.public(),
    }
    if history:
        body["eventHistory"] = [row.public() for row in user.history.rows()]
    return orjson.dumps(body)


def body_by_template(
    template: dict[str, Any],
    fired: dict[str, Any],
    fields: dict[str, Any],
    profile: dict[str, Any],
    visit: Visit | None,
    user: UserState,
) -> bytes:
    """The body that a rule writes itself; ``fired`` is what it may say of the action."""
    values = {
        "event": fields,
        "user": profile,
        "visit": {} if visit is None else visit.public(),
        "history": [row.public() for row in user.history.rows()],
        "action": fired,
    }
    return templates.render(template, values)


def fire(
    rule: Rule,
    user_id: str,
    event_id: str,
    body_of: Callable[[Action, str], bytes],
    rule_set: int = 0,
    at_ms: int = 0,
) -> list[FiredAction]:
    """Every action of a rule, of a rule set, that fires at a time for an event of a user.

    ``body_of`` an action and its id is what it sends.
    """
    fired = []
    for action in rule.actions:
        identity = action_id(user_id, event_id, rule.name, rule.version, action.name)
        body = body_of(action, identity)
        fired.append(FiredAction(identity, user_id, rule.name, rule.version, action, body, rule_set, at_ms))
    return fired


# Where actions go that are for a file: a colon is in no topic's name.
FILE: Final = "file:actions"


def action_line(fired: FiredAction, time_ms: int) -> bytes:
    """An action as a line of the actions file, JSON; ``time`` is processing time, ``body`` what is sent."""
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
    """An action as it is stored while it waits."""
    return action.model_dump_json().encode()


def decode_action(stored: bytes) -> Action:
    """Read what ``encode_action`` wrote."""
    return _action_decoder.validate_json(stored)
