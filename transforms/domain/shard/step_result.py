"""What a shard is told, and what a step of it comes to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.events.event import DEFAULT_MAX_EVENT_BYTES
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.shard.decisions import Decision
from transforms.domain.shard.shard_state import Fact
from transforms.domain.users.fetched_user import FetchedUser
from transforms.domain.webhooks.retries import RetrySchedule

# Histograms of which a step gives values.
WEBHOOK: Final = "webhook_ms"
DELIVERY: Final = "delivery_ms"


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """What the state machine needs to know; times in ms, sizes in bytes or rows.

    ``profile_max_age_ms`` None is for ever. ``allowed_lateness_ms`` is how long after its end, by the stream's time, a
    sequence is settled and a firing forgotten. ``max_waiting_bytes`` and ``max_user_bytes`` are for one user.
    ``decision_sample`` is the share of rules that did not fire and are in the decision log; None: there is no log.
    """

    ttl_ms: int = 600_000
    enrichment_deadline_ms: int = 10_000
    enrichment_retry_ms: int = 30_000
    profile_max_age_ms: int | None = None
    allowed_lateness_ms: int = 10_000
    max_waiting_bytes: int = 1_000_000
    max_user_bytes: int = 16_000_000
    history_size: int = 100
    history_fields: tuple[str, ...] = ()
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    user_key: str = "record"
    destinations: Mapping[str, RetrySchedule] = field(default_factory=dict)
    decision_sample: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The user API's answer for one user."""

    user_id: str
    fetched: FetchedUser


@dataclass(frozen=True, slots=True)
class Inspection:
    """A user's state, as a control record asked for it; ``body`` is JSON."""

    user_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Erasure:
    """That a user was forgotten because a control record said so, without saying who it was."""

    user_id: str
    found: bool
    at_ms: int
    topic: str
    record: Record

    @property
    def user_sha256(self) -> str:
        """The user as the audit shows it, hex."""
        return hashlib.sha256(self.user_id.encode()).hexdigest()

    def to_json(self) -> bytes:
        """The audit record."""
        return orjson.dumps(
            {
                "audit": "forget",
                "user_sha256": self.user_sha256,
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
        users_given_up: users whose answer nobody waits for any more.
        users_with_new_deliveries: users whose delivery queue changed.
        gone_destinations: destinations that answered 410.
        erasures: forgotten users; nothing of them may stay in what is stored.
        counts: metrics by name; ``rule_counts`` by rule and name.
        produced_ms: Kafka times of the events that actions were decided for.
        durations_ms: values of histograms, (name, ms).
        evaluated_events: events that the rules were asked about.
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
        """Make a dead letter of a record, or of what a rule should have done with it."""
        self.counts["dead_letters"] += 1
        if rule is None:
            self.counts["events_rejected"] += 1
        self.dead_letters.append(_dead_letter(topic, record, reason, detail, rule, action))

    def reject_control(self, topic: str, record: Record, detail: str, is_shared: bool) -> None:
        """Make a dead letter of a control record; ``is_shared``: every shard gets it."""
        letter = _dead_letter(topic, record, reasons.BAD_CONTROL_RECORD, detail)
        (self.shared_dead_letters if is_shared else self.dead_letters).append(letter)
        if not is_shared:
            self.counts["dead_letters"] += 1

    def include_shared_dead_letters(self) -> None:
        """This is the shard that tells what all of them found."""
        self.counts["dead_letters"] += len(self.shared_dead_letters)
        self.dead_letters += self.shared_dead_letters
        self.shared_dead_letters = []


def _dead_letter(
    topic: str,
    record: Record,
    reason: str,
    detail: str,
    rule: str | None = None,
    action: LostAction | None = None,
) -> DeadLetter:
    coordinates = (topic, record.partition, record.offset, record.timestamp_ms)
    return DeadLetter(reason, detail, *coordinates, record.key, record.value, rule, action).fitting()
