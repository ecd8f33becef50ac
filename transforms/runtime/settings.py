"""The settings of ``HandleEvents``: plain values, because they travel to the workers inside the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from transforms.adapters.lua.engines import Isolation
from transforms.adapters.user_api.client import UserApiSettings
from transforms.domain.rules.model import Rule
from transforms.domain.rules.quarantine import DEFAULT_TIME_SHARE
from transforms.domain.shard.journal import DEFAULT_COMPACT_BYTES
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.url_policy import EgressPolicy
from transforms.runtime.rule_error_sampler import DEFAULT_PER_MINUTE


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """The destinations of webhooks; ``harnesses`` is the number of workers, which share each destination's rate."""

    destinations: tuple[Destination, ...] = ()
    policy: EgressPolicy = field(default_factory=EgressPolicy)
    ca_file: str | None = None
    harnesses: int = 1


@dataclass(frozen=True, slots=True)
class HandleSettings:
    """The settings of the stateful step; times in ms. A topic that is None gets no records.

    Attributes:
        rules: live until ``rules_topic`` brings a set with a higher number than ``rule_set``.
        shard: settings of the state machine.
        compact_bytes: no journal is compacted before it has this size.
        isolation: how Lua runs, see ``FilterSet``.
        rule_time_share: of a minute of a worker, the share that a rule's Lua may take before it is set aside.
        error_letters_per_minute: dead letters of one rule's errors, for each worker.
        fetch_poll_ms: how often a shard polls for answers of the user API.
        delivery_poll_ms: how often a shard polls for the results of webhooks.
        sweep_every_ms: the step by which idle users and ended sequences are collected.
        inline: resolve user API misses and webhooks before the bundle ends, for runners whose processing-time timers
            stop with the input.
        rule_set: the number of ``rules``.
        control_topic: where a shard publishes that a destination answered 410.
        user_shards: the number of shards; 0 makes every user its own key.
        cloudevents_source: the source of Kafka actions, a URI reference.
        decisions_topic: the topic of the decision log, if the shards keep one.
        writes_actions: whether every action is also a record of the topic ``actions.FILE``, a line for the file.
        dead_letters_key: reference of the keys that sign dead letters and redrive records; None: they are not signed.
        user_hash_key: reference of the key of users' hashes; None: audit records have SHA-256, logs a random key's.
        kafka_config: properties of Kafka clients, as librdkafka takes them; None: the job has no Kafka.
        deliveries_topic: the topic of the ledger of deliveries, if there is one; partition n belongs to shard n.
        job_name: whose records in this topic are the job's own.
    """

    rules: tuple[Rule, ...]
    shard: ShardSettings = field(default_factory=ShardSettings)
    user_api: UserApiSettings = field(default_factory=UserApiSettings)
    dead_letter_topic: str | None = None
    inspection_topic: str | None = None
    audit_topic: str | None = None
    compact_bytes: int = DEFAULT_COMPACT_BYTES
    isolation: Isolation = "none"
    rule_time_share: float = DEFAULT_TIME_SHARE
    error_letters_per_minute: int = DEFAULT_PER_MINUTE
    fetch_poll_ms: int = 25
    delivery_poll_ms: int = 100
    sweep_every_ms: int = 1000
    inline: bool = False
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)
    rule_set: int = 0
    rules_topic: str | None = None
    control_topic: str | None = None
    user_shards: int = 0
    cloudevents_source: str = "event-trigger"
    decisions_topic: str | None = None
    writes_actions: bool = False
    dead_letters_key: str | None = None
    user_hash_key: str | None = None
    kafka_config: Mapping[str, str] | None = field(default=None, repr=False)
    deliveries_topic: str | None = None
    job_name: str = "event-trigger"
