"""Compares a job's outputs with what the oracle expects of the producer's ledger. Imports nothing of the pipeline."""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tests.oracle import (
    Oracle,
    OracleRule,
    SeenAction,
    action_differences,
    dead_letter_differences,
    state_differences,
)

HOOK = "hook"
QUEUE_FULL = "delivery_queue_full"
# A webhook for every click, besides the sample rules with their Kafka actions.
HOOK_DOCUMENT = {
    "name": HOOK,
    "version": 1,
    "filter": 'event.event_name == "click"',
    "actions": [{"type": "webhook", "name": HOOK, "destination": "crm"}],
}
HOOK_RULE = OracleRule(HOOK, lambda event, user, visit, history: event["event_name"] == "click", 1, (HOOK,))


@dataclass
class FilterResult:
    """Counts for the table, and the problems as text."""

    events: int = 0
    actions: int = 0
    webhooks: int = 0
    lost: int = 0
    duplicated: int = 0
    order_inversions: int = 0
    webhook_repeats: int = 0
    given_up: int = 0
    problems: list[str] = field(default_factory=list)


def judge(
    oracle: Oracle,
    events: int,
    seen: Sequence[SeenAction],
    webhooks: Sequence[tuple[str, bytes]],
    letters: Iterable[Mapping[str, Any]],
    states: Mapping[str, Mapping[str, Any]],
    unanswered_users: Collection[str] = (),
    crowded: str | None = None,
) -> FilterResult:
    """Compare all outputs: Kafka actions (exactly once), webhooks (at least once), dead letters, states.

    The profiles of ``unanswered_users`` may have come late: of their webhooks the bodies are not compared, of their
    states the visit is not, and their Kafka actions are ignored. The ``crowded`` user may have more waiting webhooks
    than the pipeline keeps: the surplus become dead letters and count as given up.
    """
    kafka = SimpleNamespace(
        actions=[action for action in oracle.actions if action.rule != HOOK and action.user_id not in unanswered_users]
    )
    seen = [action for action in seen if action.body["event"]["user_id"] not in unanswered_users]
    states = {
        user_id: {**state, "currentVisit": oracle.state(user_id)["currentVisit"]}
        if user_id in unanswered_users
        else state
        for user_id, state in states.items()
    }
    fired = firings_of_webhooks(oracle)
    given_up, letters = _given_up(letters, crowded)
    arrived = {(event["user_id"], event["event_id"]) for event in (json.loads(body)["event"] for _, body in webhooks)}
    # A restored job may have sent a webhook that was given up before.
    fired = {key: bodies for key, bodies in fired.items() if key not in given_up or key in arrived}
    verdict = FilterResult(events, len(kafka.actions), len(fired))
    expected = Counter((action.user_id, action.event_id, action.rule) for action in kafka.actions)
    arrived_actions = Counter(
        (action.body["event"]["user_id"], action.body["event"]["event_id"], action.rule) for action in seen
    )
    verdict.lost = (expected - arrived_actions).total()
    verdict.duplicated = (arrived_actions - expected).total()
    verdict.given_up = len(given_up - arrived)
    verdict.problems += action_differences(kafka, seen)  # type: ignore[arg-type]
    verdict.problems += dead_letter_differences(oracle, letters)
    verdict.problems += state_differences(oracle, states)
    _judge_webhooks(verdict, fired, webhooks, unanswered_users, given_up)
    verdict.order_inversions = sum("order of" in problem for problem in verdict.problems)
    return verdict


def firings_of_webhooks(oracle: Oracle) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Bodies of the webhooks that must come, by user and event, in their order.

    An event that is too late for a full history to keep is acted on again, under the same id, when it is repeated; then
    there are several.
    """
    fired: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for action in oracle.actions:
        if action.rule == HOOK:
            # Without the history, which a webhook has on request only.
            fired[action.user_id, action.event_id].append(
                {name: action.body[name] for name in action.body if name != "eventHistory"}
            )
    return dict(fired)


def _given_up(
    letters: Iterable[Mapping[str, Any]], crowded: str | None
) -> tuple[set[tuple[str, str]], list[Mapping[str, Any]]]:
    """User and event of the webhooks that were too many, and the other dead letters."""
    given_up, others = set(), []
    for letter in letters:
        if letter["reason"] == QUEUE_FULL and base64.b64decode(letter["key"]).decode() == crowded:
            given_up.add((crowded, json.loads(base64.b64decode(letter["value"]))["event_id"]))
        else:
            others.append(letter)
    return given_up, others


def _judge_webhooks(
    verdict: FilterResult,
    fired: Mapping[tuple[str, str], list[dict[str, Any]]],
    arrived: Sequence[tuple[str, bytes]],
    unanswered_users: Collection[str],
    given_up: Collection[tuple[str, str]],
) -> None:
    """Compare the first webhook of each id: none missing, none too many, each user's in order; repeats have its body.

    A webhook that was given up and then sent by a restored job has no place in the order.
    """
    first: dict[str, dict[str, Any]] = {}
    order: dict[str, list[str]] = defaultdict(list)
    for webhook_id, raw in arrived:
        body = json.loads(raw)
        user_id, event_id = body["event"]["user_id"], body["event"]["event_id"]
        if webhook_id not in first:
            first[webhook_id] = body
            if (user_id, event_id) not in given_up:
                order[user_id].append(event_id)
        elif body not in (first[webhook_id], *fired.get((user_id, event_id), [])[1:]):
            verdict.problems.append(f"webhook {webhook_id} came again with another body")
    verdict.webhook_repeats = len(arrived) - len(first)
    expected: dict[str, list[str]] = defaultdict(list)
    for user_id, event_id in fired:
        if (user_id, event_id) not in given_up:
            expected[user_id].append(event_id)
    came = Counter((body["event"]["user_id"], body["event"]["event_id"]) for body in first.values())
    missing = Counter(dict.fromkeys(fired, 1)) - came
    extra = came - Counter(dict.fromkeys(fired, 1))
    verdict.lost += missing.total()
    verdict.duplicated += extra.total()
    verdict.problems += [f"webhook missing: {key}" for key in list(missing)[:5]]
    verdict.problems += [f"webhook too many, under an id of its own: {key}" for key in list(extra)[:5]]
    if not missing and not extra:
        verdict.problems += [
            f"webhook of {user_id}, {event_id}: body is not the oracle's"
            for body in first.values()
            if fired[(user_id := body["event"]["user_id"]), (event_id := body["event"]["event_id"])][0] != body
            and user_id not in unanswered_users
        ][:5]
        verdict.problems += [
            f"order of {user_id}'s webhooks: expected {expected[user_id]}, got {got}"
            for user_id, got in order.items()
            if got != expected[user_id]
        ][:5]


# An answer is in the state with the step after it; a barrier that comes in between finds the webhook still unsent.
_ANSWER_S = 2.0


@dataclass
class Fault:
    """When a fault struck, in seconds since the epoch.

    Attributes:
        checkpoint_s: when the last completed checkpoint was triggered.
        struck_s: when the fault struck.
        over_s: when every task ran again.
    """

    checkpoint_s: float
    struck_s: float
    over_s: float = float("inf")


def repeats_from_before(faults: Sequence[Fault], arrived: Sequence[tuple[float, str]]) -> list[str]:
    """Webhooks that came again although a checkpoint knew that they had been sent, or without any fault.

    ``arrived`` are when (seconds since the epoch) which webhook came, ``faults`` all that there were, both in order.
    """
    problems, before = [], dict[str, float]()
    for at_s, webhook_id in arrived:
        if webhook_id in before:
            came_s = before[webhook_id]
            # The first fault that may have lost the record of its delivery.
            fault = next((fault for fault in faults if fault.over_s >= came_s), None)
            if fault is None or at_s < fault.struck_s or came_s < fault.checkpoint_s - _ANSWER_S:
                problems.append(f"{webhook_id} came again: at {came_s:.1f} and {at_s:.1f}, {fault}")
        before[webhook_id] = at_s
    return problems
