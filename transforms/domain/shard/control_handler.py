"""Control records within one step: rule sets, forget, inspect, redrive, destinations (docs/user-state.md)."""

from __future__ import annotations

import json
from typing import Any

import orjson

from transforms.domain.base import exact_json
from transforms.domain.events.micro_batch import is_for_all
from transforms.domain.events.record import MAX_PRODUCED_BYTES, Record
from transforms.domain.rules.live_sets import RuleSets, cached_rule_set
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.sets import StoredRules
from transforms.domain.rules.suppressions import SUPPRESS, UNSUPPRESS, read_suppression
from transforms.domain.shard.facts import (
    GroupForgotten,
    RuleSetReplaced,
    SuppressionEnded,
    SuppressionSet,
    UserForgotten,
)
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step_result import Erasure, Inspection
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.shard.webhook_dispatch import WebhookDispatch
from transforms.domain.webhooks.delivery_queue import EMPTY_QUEUE, is_switch
from transforms.domain.webhooks.redrive import read_redrive

_ALLOWED = (
    'allowed are {"inspect": user_id}, {"forget": user_id}, {"redrive": user_id, "action": {...}}, '
    '{"suppress": user_id, "group": name or "*", "until": ms or null}, '
    '{"unsuppress": user_id, "group": name or "*"} and '
    '{"destination": name, "enabled": true or false}; rule sets go to --rules_topic'
)


class ControlHandler:
    """Handles the control records of one step; a record that is none of them becomes a dead letter."""

    __slots__ = ("_dispatch", "_result", "_scope")

    def __init__(self, scope: StepScope, dispatch: WebhookDispatch) -> None:
        self._scope = scope
        self._result = scope.result
        self._dispatch = dispatch

    def handle(self, topic: str, record: Record) -> None:
        """Handle a record of the control topic or of the rules topic."""
        rule_sets = self._scope.rule_sets
        if rule_sets is not None and topic == rule_sets.topic:
            self._replace_rules(rule_sets, topic, record)
            return
        try:
            document = exact_json.loads(record.value)
        except orjson.JSONDecodeError as error:
            self._result.reject_control(topic, record, f"not JSON: {error}", _is_shared(record))
            return
        name, user_id = next(iter(document.items()), (None, None)) if isinstance(document, dict) else (None, None)
        if name == "inspect" and isinstance(user_id, str) and len(document) == 1:
            self._result.inspections.append(Inspection(user_id, _inspect(self._scope.state, user_id)))
        elif name == "forget" and isinstance(user_id, str) and len(document) == 1:
            self._forget(user_id, topic, record)
        elif isinstance(document, dict) and (SUPPRESS in document or UNSUPPRESS in document):
            self._suppress(topic, record, document)
        elif is_switch(document):
            self._dispatch.switch(document["destination"], document["enabled"])
        elif isinstance(document, dict) and "redrive" in document:
            self._redrive(topic, record, is_for_all(document))
        else:
            self._result.reject_control(topic, record, _ALLOWED, is_for_all(document))

    def _replace_rules(self, rule_sets: RuleSets, topic: str, record: Record) -> None:
        """Make a rule set live if its number is higher; one that cannot be used changes nothing."""
        try:
            rule_set = cached_rule_set(record.value)
            if not rule_sets.replaces(rule_set.number, self._scope.state.rules):
                self._result.counts["rule_sets_ignored"] += 1
                return
            self._scope.settings.action_topics.check(rule_set.rules)
            live = rule_sets.compiled(StoredRules(rule_set.number, record.value))
        except RuleError as error:
            self._result.reject_control(topic, record, str(error), _is_shared(record))
            return
        self._scope.record(RuleSetReplaced(rule_set.number, record.value))
        for group in self._scope.filters.groups.keys() - live.filters.groups.keys():
            self._scope.record(GroupForgotten(group))
        self._result.applied_rule_sets.append(rule_set.number)
        self._result.counts["rule_sets_applied"] += 1
        self._scope.use(live)

    def _suppress(self, topic: str, record: Record, document: dict[str, Any]) -> None:
        try:
            suppression = read_suppression(document)
        except ValueError as error:
            self._result.reject_control(topic, record, str(error), is_for_all(document))
            return
        user_id, group, scope = suppression.user_id, suppression.group, self._scope
        if suppression.until_ms is None:
            if group in scope.state.rule_states.of(user_id).suppressed:
                scope.record(SuppressionEnded(user_id, group))
            self._result.counts["suppressions_lifted"] += 1
            return
        self._result.counts["suppressions_set"] += 1
        scope.record(SuppressionSet(user_id, group, suppression.until_ms))
        self._dispatch.suppress(user_id)

    def _redrive(self, topic: str, record: Record, is_shared: bool) -> None:
        coordinates = f"{record.partition}:{record.offset}:{record.timestamp_ms}"
        try:
            user_id, delivery = read_redrive(record.value, self._scope.now_ms, self._scope.signer, coordinates)
        except ValueError as error:
            self._result.reject_control(topic, record, str(error), is_shared)
        else:
            self._dispatch.redrive(user_id, delivery)

    def _forget(self, user_id: str, topic: str, record: Record) -> None:
        state, result = self._scope.state, self._result
        waiting, found = state.parked.get(user_id), state.holds(user_id)
        result.counts["users_forgotten"] += 1
        result.counts["events_forgotten"] += len(waiting.records) if waiting is not None else 0
        if user_id in state.deliveries:
            result.counts["deliveries_forgotten"] += len(list(state.deliveries[user_id]))
            result.users_with_new_deliveries[user_id] = None
        result.counts["suppressions_forgotten"] += len(state.rule_states.of(user_id).suppressed)
        self._scope.record(UserForgotten(user_id, True))
        result.erasures.append(Erasure(user_id, found, self._scope.now_ms, topic, record))


def _inspect(state: ShardState, user_id: str) -> bytes:
    """Everything that the shard keeps of a user, JSON; the largest parts are left out of what is too long for Kafka."""
    user = state.users.get(user_id)
    waiting = state.parked.get(user_id)
    shown: dict[str, Any] = {
        "user_id": user_id,
        "found": user is not None,
        "parked": len(waiting.records) if waiting else 0,
        "last_seen": user.last_seen_ms if user else None,
        "enrichment": user.enrichment if user else None,
        "userProfile": user.profile() if user else None,
        "currentVisit": user.visit.public() if user and user.visit else None,
        "eventHistory": [row.public() for row in user.history.rows()] if user else [],
        "ruleState": state.rule_states.of(user_id).public(),
        "deliveries": state.deliveries.get(user_id, EMPTY_QUEUE).public(),
    }
    body = exact_json.dumps(shown)
    for name in ("eventHistory", "userProfile", "ruleState", "deliveries", "currentVisit"):
        if len(body) <= MAX_PRODUCED_BYTES:
            break
        shown |= {name: None, "left_out": [*shown.get("left_out", ()), name]}
        body = exact_json.dumps(shown)
    return body


def _is_shared(record: Record) -> bool:
    """Whether every shard may have got a control record, so that only one of them says what is wrong with it.

    The reader that sent it to its shards takes some bytes for JSON that ``orjson`` does not, as lone surrogates, and so
    does ``json``.
    """
    try:
        return is_for_all(exact_json.loads(record.value))
    except orjson.JSONDecodeError:
        pass
    try:
        return is_for_all(json.loads(record.value))
    except (ValueError, RecursionError):
        return False
