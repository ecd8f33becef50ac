"""What a step of a shard decided."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.shard.decisions import Decision
from transforms.domain.shard.facts import Fact

# Histograms to which a step adds values.
WEBHOOK: Final = "webhook_ms"  # one request
DELIVERY: Final = "delivery_ms"  # from the decision to the delivery


@dataclass(frozen=True, slots=True)
class Inspection:
    """The state of a user for which a control record asked; ``body`` is JSON."""

    user_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Erasure:
    """The erasure of a user by a control record; its audit record does not name the user.

    Attributes:
        found: whether anything of the user was kept.
        at_ms: processing time of the erasure.
        topic: topic of the control record ``record``.
    """

    user_id: str
    found: bool
    at_ms: int
    topic: str
    record: Record

    @property
    def user_sha256(self) -> str:
        """SHA-256 of the user id, hex."""
        return hashlib.sha256(self.user_id.encode()).hexdigest()

    def to_json(self, user_hash: str | None = None) -> bytes:
        """The audit record, JSON; with the user's keyed hash, or without one the SHA-256."""
        user = {"user_sha256": self.user_sha256} if user_hash is None else {"user_hash": user_hash}
        return orjson.dumps(
            {
                "audit": "forget",
                **user,
                "found": self.found,
                "time": self.at_ms,
                "topic": self.topic,
                "partition": self.record.partition,
                "offset": self.record.offset,
            }
        )


@dataclass(slots=True)
class StepResult:
    """Everything that one step decided.

    Attributes:
        facts: what the journal stores, in order.
        actions: Kafka and debug actions, which leave with this step.
        decided_actions: all actions of this step, webhooks included.
        decisions: records of the decision log.
        applied_rule_sets: numbers of the rule sets that became live.
        shared_dead_letters: of records that every shard gets; only one shard publishes them.
        users_to_fetch: users to ask the user API for, in order.
        users_given_up: users whose fetch no event waits for any longer.
        users_with_new_deliveries: users whose delivery queue changed.
        stopped_deliveries: ids of webhooks that are being sent and must not be tried again.
        gone_destinations: destinations that answered 410.
        erasures: forgotten users; nothing of them may stay in what is stored.
        counts: metrics by name; ``rule_counts`` by rule and name.
        produced_ms: Kafka times of the events that actions were decided for.
        durations_ms: values of histograms, (name, ms).
        evaluated_events: events for which the rules' filters ran.
    """

    facts: list[Fact] = field(default_factory=list)
    actions: list[FiredAction] = field(default_factory=list)
    decided_actions: list[FiredAction] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    inspections: list[Inspection] = field(default_factory=list)
    erasures: list[Erasure] = field(default_factory=list)
    applied_rule_sets: list[int] = field(default_factory=list)
    shared_dead_letters: list[DeadLetter] = field(default_factory=list)
    users_to_fetch: dict[str, None] = field(default_factory=dict)
    users_given_up: list[str] = field(default_factory=list)
    users_with_new_deliveries: dict[str, None] = field(default_factory=dict)
    stopped_deliveries: list[str] = field(default_factory=list)
    gone_destinations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    rule_counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    produced_ms: list[int] = field(default_factory=list)
    durations_ms: list[tuple[str, int]] = field(default_factory=list)
    evaluated_events: int = 0

    def reject(
        self,
        topic: str,
        record: Record,
        reason: str,
        detail: str,
        rule: str | None = None,
        action: LostAction | None = None,
    ) -> None:
        """Add a dead letter: for a record, or with ``rule`` for what that rule should have done with it."""
        self.counts["dead_letters"] += 1
        if rule is None:
            self.counts["events_rejected"] += 1
        self.dead_letters.append(_dead_letter(topic, record, reason, detail, rule, action))

    def reject_control(self, topic: str, record: Record, detail: str, is_shared: bool) -> None:
        """Add a dead letter for a control record; ``is_shared``: every shard gets the record."""
        letter = _dead_letter(topic, record, reasons.BAD_CONTROL_RECORD, detail)
        (self.shared_dead_letters if is_shared else self.dead_letters).append(letter)
        if not is_shared:
            self.counts["dead_letters"] += 1

    def include_shared_dead_letters(self) -> None:
        """Publish the dead letters of records that every shard gets; called in one shard only."""
        self.counts["dead_letters"] += len(self.shared_dead_letters)
        self.dead_letters += self.shared_dead_letters
        self.shared_dead_letters = []


def _dead_letter(topic: str, record: Record, reason: str, detail: str, *lost: Any) -> DeadLetter:
    coordinates = (topic, record.partition, record.offset, record.timestamp_ms)
    return DeadLetter(reason, detail, *coordinates, record.key, record.value, *lost).fitting()
