"""``Settings``: all options as one frozen object, and what the parts of the pipeline need of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pipeline.kafka.security import KafkaSecurity
from pipeline.launch.options.all_options import (
    FlinkOptions,
    InputOptions,
    KafkaOptions,
    OutputOptions,
    RuleOptions,
    StateOptions,
)
from pipeline.launch.options.fields import DIRECT_RUNNER, Option, options_of
from pipeline.launch.options.kafka_properties import kafka_properties
from transforms.adapters.user_api.client import UserApiSettings
from transforms.domain.rules.action_topics import ActionTopics, topics_of
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import OUT_OF_ORDER_MS, ShardSettings
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.url_policy import EgressPolicy


class Settings(FlinkOptions, OutputOptions, RuleOptions, StateOptions, InputOptions, KafkaOptions):
    """All options, checked. A field has its flag's name; its unit is in the name or in ``OPTIONS``."""

    @property
    def embedded(self) -> bool:
        """Whether the run is the embedded default: the bundled stream on DirectRunner, without a broker."""
        return self.runner == DIRECT_RUNNER and self.bootstrap_servers is None

    @property
    def keeps_decisions(self) -> bool:
        """Whether the job writes a decision log."""
        return self.decisions_topic is not None or self.decisions_file is not None

    @property
    def partition_discovery_ms(self) -> int:
        """The pause between two looks for new partitions."""
        return round(self.partition_discovery_seconds * 1000)

    @property
    def own_topics(self) -> dict[str, str]:
        """The topics that the job reads or writes itself, by the option that names them."""
        names = ("events", "control", "rules", "dead_letters", "inspections", "audit", "decisions", "deliveries")
        topics = {f"{name}_topic": getattr(self, f"{name}_topic") for name in names}
        return {name: topic for name, topic in topics.items() if topic is not None}

    def needed_topics(self, has_kafka_actions: bool) -> dict[str, str]:
        """The topics that a job on Kafka needs from its start on, by the option that names them."""
        topics = self.own_topics
        if self.control_topic is None:
            del topics["inspections_topic"]
            if self.rules_topic is None:
                del topics["audit_topic"]
        return topics | ({"actions_topic": self.actions_topic} if has_kafka_actions else {})

    def topics_of_actions(self, rules: Iterable[Rule]) -> ActionTopics:
        """The topics that Kafka actions may write, where the job starts with ``rules``."""
        return ActionTopics(
            tuple(self.own_topics.values()), (self.actions_topic, *(self.action_topics or topics_of(rules)))
        )

    def egress_policy(self) -> EgressPolicy:
        """The hosts that webhooks may go to."""
        return EgressPolicy(self.destination_host or None, self.allow_private_destinations)

    def shard(self, destinations: Sequence[Destination], rules: Iterable[Rule] = ()) -> ShardSettings:
        """The settings of a shard's step."""
        max_age_s = self.profile_max_age_seconds
        return ShardSettings(
            ttl_ms=round(self.state_ttl_seconds * 1000),
            enrichment_deadline_ms=round(self.enrichment_deadline_seconds * 1000),
            enrichment_retry_ms=round(self.enrichment_retry_seconds * 1000),
            profile_max_age_ms=None if max_age_s is None else round(max_age_s * 1000),
            out_of_order_ms=max(OUT_OF_ORDER_MS, self.watermark_out_of_orderness_ms),
            allowed_lateness_ms=round(self.allowed_lateness_seconds * 1000),
            max_waiting_bytes=self.max_waiting_bytes,
            max_user_bytes=self.max_user_bytes,
            history_size=self.history_size,
            history_fields=self.history_fields,
            max_event_bytes=self.max_event_bytes,
            user_key=self.user_key,
            min_timestamp_ms=self.min_event_timestamp_ms,
            max_lead_ms=round(self.max_event_lead_seconds * 1000),
            destinations={destination.name: destination.retry for destination in destinations},
            decision_sample=self.decision_sample if self.keeps_decisions else None,
            action_topics=self.topics_of_actions(rules),
        )

    def user_api(self) -> UserApiSettings:
        """The settings of the user API's client."""
        return UserApiSettings(
            base_url=self.user_api_url,
            call_timeout_s=self.user_api_timeout_seconds,
            layout=self.user_api_layout,
            concurrency=self.user_api_concurrency,
            token=self.user_api_token,
            max_answer_bytes=self.user_api_max_answer_bytes,
            ca_file=None if self.user_api_ca_file is None else str(self.user_api_ca_file),
        )

    def kafka_access(self) -> KafkaSecurity:
        """How clients and brokers prove to each other who they are.

        Raises:
            OptionError: options that are not allowed together.
        """
        return KafkaSecurity.of({name: getattr(self, name) for name in options_of(KafkaOptions)})

    def client_config(self) -> dict[str, str]:
        """Properties of every Kafka client; those given as flags come last."""
        properties = kafka_properties("kafka_property", self.kafka_property)
        return {"bootstrap.servers": self.bootstrap_servers or "", **properties}

    def consumer_config(self) -> dict[str, str]:
        """Properties of Kafka consumers; those given as flags come last."""
        properties = kafka_properties("consumer_property", self.consumer_property)
        return {"isolation.level": self.isolation_level, **self.client_config(), **properties}

    def producer_config(self) -> dict[str, str]:
        """Properties of Kafka producers; those given as flags come last."""
        properties = kafka_properties("producer_property", self.producer_property)
        return {"linger.ms": "1", **self.client_config(), **properties}


# In the order in which --help and the docs show them.
GROUPS: Final = (KafkaOptions, InputOptions, StateOptions, RuleOptions, OutputOptions, FlinkOptions)
OPTIONS: Final[dict[str, Option]] = {name: option for group in GROUPS for name, option in options_of(group).items()}
