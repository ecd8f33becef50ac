"""Asks a rule again when quiet hours release its actions: ``recheck``, with the user as known then (docs/rules.md)."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from transforms.domain.base import exact_json
from transforms.domain.base.calendar import rfc_3339
from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.record import Record
from transforms.domain.rules.engine import OutcomeKind
from transforms.domain.rules.model import Rule
from transforms.domain.rules.state import HeldAction
from transforms.domain.shard import decisions
from transforms.domain.shard.facts import ActionHeld
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.shard.webhook_dispatch import NO_COORDINATE
from transforms.domain.users.user import PENDING, UserState


def allows(scope: StepScope, rule: Rule, held: HeldAction, user_id: str) -> bool | None:
    """Whether a held action still goes out; None: that waits for the user API's answer.

    An action that was held before its rule had a ``recheck`` goes out.
    """
    if rule.recheck is None or not held.event:
        return True
    user = _known_user(scope, user_id)
    if user is None:
        if user_id not in scope.fetch_started_ms:
            scope.result.users_to_fetch[user_id] = None
        if not held.waits:
            scope.record(ActionHeld(user_id, msgspec.structs.replace(held, waits=True)))
        return None
    if scope.skips(rule, user):
        scope.count(rule, "skipped", "rules_skipped")
        scope.log.held(decisions.SKIPPED, user_id, held, f"recheck: profile is {user.enrichment}")
        return False
    newest_ms = user.history.newest_ms()
    at_ms = scope.now_ms if newest_ms is None else max(scope.now_ms, newest_ms)
    outcome = scope.filters.recheck(rule, _fields(held.event), user, at_ms)
    if outcome.kind is OutcomeKind.ALLOWED:
        return True
    if outcome.kind is OutcomeKind.NOT_ALLOWED:
        scope.count(rule, "recheck_refused", "held_dropped")
        scope.log.held(decisions.DROPPED, user_id, held, f"recheck does not allow it at {rfc_3339(at_ms)}")
        return False
    scope.count(rule, "error", "rule_errors")
    record = Record(NO_COORDINATE, NO_COORDINATE, scope.now_ms, user_id.encode(), held.event)
    scope.result.reject("", record, reasons.RULE_ERROR, outcome.text, rule.name)
    scope.log.held(decisions.ERROR, user_id, held, outcome.text)
    return False


def _fields(event: bytes) -> Any:
    """The event with numbers that Lua takes."""
    try:
        return orjson.loads(event)
    except orjson.JSONDecodeError:  # an integer of more digits than a float has
        return exact_json.loads(event)


def _known_user(scope: StepScope, user_id: str) -> UserState | None:
    """The user, unless the TTL has ended or the profile or events of the user are still waited for."""
    user = scope.state.users.get(user_id)
    if user is None or user.enrichment == PENDING or user_id in scope.state.parked:
        return None
    return None if scope.has_expired(user) else user
