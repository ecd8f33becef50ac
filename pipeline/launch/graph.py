"""The pipeline's graph: the order of its steps, on one screen."""

from __future__ import annotations

import apache_beam as beam

from pipeline.embedded.show import ShowActions, ShowDeadLetters
from pipeline.kafka.client_properties import for_java, for_librdkafka
from pipeline.launch.options import DIRECT_RUNNER, EXACTLY_ONCE, FLINK_RUNNER, Settings
from transforms.domain.rules import actions
from transforms.domain.rules.cloudevents import default_source
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard import decisions
from transforms.domain.webhooks.destinations import Destination
from transforms.handle_events import ACTIONS, DEBUG, RECORDS, HandleEvents, HandleSettings, WebhookSettings
from transforms.kafka import ReadControl, ReadEvents, ReadSettings, WriteSettings, WriteToTopic
from transforms.sinks import PrintDebugActions, WriteLines


def build(
    pipeline: beam.Pipeline,
    settings: Settings,
    rule_set: RuleSet,
    destinations: tuple[Destination, ...] = (),
    bundled_events: beam.PTransform | None = None,
) -> None:
    """Kafka (or ``bundled_events``) → one stateful step → sinks.

    Labels and the Flatten are part of the state's identity on Flink: a renamed step loses its state.
    """
    events = pipeline | "ReadEvents" >> (bundled_events or ReadEvents(_read_events(settings)))
    control = pipeline | "ReadControl" >> ReadControl(_read_control(settings))
    handled = (
        (events, control)
        | "Inputs" >> beam.Flatten()
        | "HandleEvents" >> HandleEvents(_handle(settings, rule_set, destinations))
    )
    records = handled[RECORDS]
    if settings.embedded:
        records = records | "ShowActions" >> ShowActions(rule_set.rules, settings.actions_topic)
    if settings.decisions_file is not None:
        records = records | "WriteDecisions" >> WriteLines(decisions.FILE, str(settings.decisions_file))
    if settings.actions_file is not None:
        records = records | "WriteActionLines" >> WriteLines(actions.FILE, str(settings.actions_file))
    if settings.verbose or not settings.embedded:
        handled[DEBUG] | "PrintDebugActions" >> PrintDebugActions()
    if settings.embedded:
        records | "ShowDeadLetters" >> ShowDeadLetters()
        if settings.dead_letters_file is not None:
            path = str(settings.dead_letters_file)
            records | "WriteDeadLetters" >> WriteLines(settings.dead_letters_topic, path)
    else:
        handled[ACTIONS] | "WriteActions" >> WriteToTopic(_write_actions(settings))
        records | "WriteRecords" >> WriteToTopic(
            WriteSettings(settings.dead_letters_topic, _client(settings, settings.producer_config()))
        )


def _read_events(settings: Settings) -> ReadSettings:
    return ReadSettings(
        topic=settings.events_topic,
        consumer_config=_client(settings, settings.consumer_config()),
        group_id=settings.group_id,
        starting_offsets=settings.starting_offsets,
        starting_timestamp_ms=settings.starting_timestamp_ms,
        user_shards=settings.user_shards,
        max_parallelism=settings.max_parallelism,
        user_key=settings.user_key,
        linger_ms=settings.batch_linger_ms,
        max_batch_records=settings.batch_max_records,
        max_batch_bytes=settings.batch_max_bytes,
        watermark_out_of_orderness_ms=settings.watermark_out_of_orderness_ms,
        watermark_idleness_ms=settings.watermark_idleness_ms,
        partition_discovery_ms=settings.partition_discovery_ms,
        skip_dead_partitions=tuple(map(int, settings.skip_dead_partitions)),
    )


def _read_control(settings: Settings) -> ReadSettings:
    return ReadSettings(
        topic=settings.control_topic,
        rules_topic=settings.rules_topic,
        consumer_config=_client(settings, settings.consumer_config()),
        group_id=settings.group_id,
        # Records of these topics stay valid until newer ones replace them, so a new job reads all of them.
        starting_offsets="earliest",
        user_shards=settings.user_shards,
        max_parallelism=settings.max_parallelism,
        linger_ms=settings.batch_linger_ms,
        watermark_idleness_ms=settings.watermark_idleness_ms,
        partition_discovery_ms=settings.partition_discovery_ms,
    )


def _handle(settings: Settings, rule_set: RuleSet, destinations: tuple[Destination, ...]) -> HandleSettings:
    return HandleSettings(
        rules=rule_set.rules,
        rule_set=rule_set.number,
        rules_topic=settings.rules_topic,
        control_topic=settings.control_topic,
        user_shards=settings.user_shards,
        shard=settings.shard(destinations, rule_set.rules),
        webhooks=WebhookSettings(
            destinations,
            settings.egress_policy(),
            None if settings.webhook_ca_file is None else str(settings.webhook_ca_file),
            settings.parallelism if settings.runner == FLINK_RUNNER else 1,
        ),
        user_api=settings.user_api(),
        dead_letter_topic=settings.dead_letters_topic,
        inspection_topic=settings.inspections_topic,
        audit_topic=settings.audit_topic,
        compact_bytes=settings.compact_bytes,
        isolation=settings.rules_isolation,
        rule_time_share=settings.rule_time_share,
        error_letters_per_minute=settings.rule_error_letters_per_minute,
        inline=settings.runner == DIRECT_RUNNER,
        decisions_topic=settings.decisions_topic if settings.decisions_file is None else decisions.FILE,
        writes_actions=settings.actions_file is not None,
        dead_letters_key=settings.dead_letters_key,
        user_hash_key=settings.user_hash_key,
        kafka_config=for_librdkafka(settings.client_config(), settings.kafka_access())
        if settings.bootstrap_servers
        else None,
        cloudevents_source=settings.cloudevents_source or default_source(settings.job_name),
        deliveries_topic=settings.deliveries_topic,
        job_name=settings.job_name,
    )


def _write_actions(settings: Settings) -> WriteSettings:
    producer = _client(settings, settings.producer_config())
    exactly_once = settings.delivery_guarantee == EXACTLY_ONCE
    if exactly_once:
        producer["transaction.timeout.ms"] = str(settings.transaction_timeout_ms)
    return WriteSettings(
        settings.actions_topic,
        producer,
        settings.delivery_guarantee,
        settings.transactional_id_prefix if exactly_once else None,
    )


def _client(settings: Settings, config: dict[str, str]) -> dict[str, str]:
    """The properties of a client: librdkafka on DirectRunner, Java's on Flink."""
    access = settings.kafka_access()
    return for_librdkafka(config, access) if settings.runner == DIRECT_RUNNER else for_java(config, access)
