"""Options of the group "Input": what is read from Kafka, and how it becomes micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.launch.options.fields import input_option


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """What the Kafka sources read."""

    bootstrap_servers: str | None = input_option(
        None, "Kafka brokers, HOST:PORT[,HOST:PORT]; without them DirectRunner runs the bundled stream"
    )
    events_topic: str = input_option("user-tracking-events", "topic of user-tracking events, keyed by user_id")
    control_topic: str | None = input_option(None, "topic of control records (forget, inspect, destination, redrive)")
    group_id: str = input_option("flink-event-trigger", "consumer group that offsets are committed to")
    starting_offsets: str = input_option(
        "committed",
        "where to start without state; committed falls back to earliest",
        choices=("committed", "earliest", "latest", "timestamp"),
    )
    starting_timestamp_ms: int | None = input_option(
        None, "broker time to start from with --starting_offsets=timestamp", unit="ms since the epoch", least=0
    )
    isolation_level: str = input_option(
        "read_committed",
        "whether records of open transactions are read",
        choices=("read_committed", "read_uncommitted"),
    )
    kafka_property: tuple[str, ...] = input_option(
        (), "NAME=VALUE for every Kafka client, as security.protocol=SASL_SSL; may be repeated"
    )
    consumer_property: tuple[str, ...] = input_option((), "NAME=VALUE for Kafka consumers; may be repeated")
    user_key: str = input_option(
        "record",
        "where the user comes from: the record key, or user_id in the body",
        choices=("record", "field"),
    )
    user_shards: int = input_option(
        16,
        "user shards the state is kept in, fixed for its life, at least 4 a slot; 0 keys by user",
        unit="shards",
        least=0,
        most=32768,
    )
    max_parallelism: int = input_option(
        128, "Flink key groups, fixed for the state's life", unit="key groups", least=1, most=32768
    )
    batch_linger_ms: int = input_option(
        10, "longest time a record waits for others, half of it on average", unit="ms", least=0, most=10_000
    )
    batch_max_records: int = input_option(1000, "records that end the wait", unit="records", least=1, most=100_000)
    batch_max_bytes: int = input_option(1_000_000, "bytes that end the wait", unit="bytes", least=1024, most=8_000_000)
    watermark_out_of_orderness_ms: int = input_option(5000, "how late the watermark is", unit="ms", least=0)
    watermark_idleness_ms: int = input_option(
        10_000, "silence after which a partition counts as read until then", unit="ms", least=1
    )
    max_event_bytes: int = input_option(
        10_240, "larger events are dead letters", unit="bytes", least=256, most=1_000_000
    )
