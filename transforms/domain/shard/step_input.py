"""What goes into a step of a shard: its input, and what all steps of a worker share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from transforms.domain.events.event import EventLimits
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.events.micro_batch import MicroBatch
from transforms.domain.rules.action_topics import ActionTopics
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.live_sets import RuleSets
from transforms.domain.users.fetched_user import FetchedUser
from transforms.domain.webhooks.delivery_queue import DeliveryResult
from transforms.domain.webhooks.ledger import LedgerPosition
from transforms.domain.webhooks.retries import RetrySchedule

# The records of a partition are at most this far out of order, unless the watermark is late by more.
OUT_OF_ORDER_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class ShardSettings(EventLimits):
    """Settings of the shards; times in ms, sizes in bytes or rows.

    Attributes (besides those of ``EventLimits``):
        ttl_ms: a user is forgotten this long after the last event.
        enrichment_deadline_ms: how long an event waits for the user API.
        enrichment_retry_ms: pause after a failed request before the user API is asked again.
        profile_max_age_ms: a profile is fetched again when it is this old; None: never.
        out_of_order_ms: how far the times of a partition's records may be out of order.
        allowed_lateness_ms: by the stream's time, how long after its end a sequence is settled and a firing forgotten.
        max_waiting_bytes: limit of one user's waiting events.
        max_user_bytes: limit of one user's profile and history.
        history_size: rows of a history.
        history_fields: event fields that a history keeps.
        destinations: retry schedules by destination.
        decision_sample: the share of rules that did not fire and are in the decision log; None: there is no log.
        action_topics: the topics that Kafka actions may write.
    """

    ttl_ms: int = 600_000
    enrichment_deadline_ms: int = 10_000
    enrichment_retry_ms: int = 30_000
    profile_max_age_ms: int | None = None
    out_of_order_ms: int = OUT_OF_ORDER_MS
    allowed_lateness_ms: int = 10_000
    max_waiting_bytes: int = 1_000_000
    max_user_bytes: int = 16_000_000
    history_size: int = 100
    history_fields: tuple[str, ...] = ()
    destinations: Mapping[str, RetrySchedule] = field(default_factory=dict)
    decision_sample: float | None = None
    action_topics: ActionTopics = field(default_factory=ActionTopics)


@dataclass(frozen=True, slots=True)
class Answer:
    """The user API's answer for one user."""

    user_id: str
    fetched: FetchedUser


@dataclass(frozen=True, slots=True)
class StepInput:
    """The input of one step; times in ms.

    Attributes:
        now_ms: processing time.
        batch: events or control records, in partition order.
        answers: the user API's answers since the last step.
        delivery_results: how deliveries of webhooks ended since the last step.
        fetch_started_ms: users for whom a fetch is in flight, and since when.
        in_flight: ids of the actions whose webhooks are being sent.
        stream_ms: every record that Kafka had received by this time has been handled; None outside the stream timer.
        ledger: how far the state contains the ledger of deliveries after this step; None: as far as before.
    """

    now_ms: int
    batch: MicroBatch | None = None
    answers: Sequence[Answer] = ()
    delivery_results: Sequence[DeliveryResult] = ()
    fetch_started_ms: Mapping[str, int] = field(default_factory=dict)
    stream_ms: int | None = None
    in_flight: Collection[str] = ()
    ledger: LedgerPosition | None = None


def never_missing(_: str) -> bool:
    """Every topic exists, as far as is known."""
    return False


@dataclass(frozen=True, slots=True)
class StepContext:
    """What all steps of a worker share.

    Attributes:
        settings: the shards' settings.
        rules: one compiled rule set, or the sets of which a shard picks its own.
        signer: checks redrive records.
        is_topic_missing: whether Kafka is known not to have the topic of an action.
    """

    settings: ShardSettings
    rules: FilterSet | RuleSets
    signer: LetterSigner = field(default_factory=LetterSigner)
    is_topic_missing: Callable[[str], bool] = never_missing
