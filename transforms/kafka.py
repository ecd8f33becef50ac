"""Reads and writes Kafka topics: ``ReadEvents``, ``ReadControl``, ``WriteToTopic``.

Each transform has a URN and a JSON payload (runners/flink/connectors/README.md). Our Flink job server translates them
to Flink's own source and sink; every other runner ignores the URN and runs what ``expand`` builds, on confluent-kafka.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import apache_beam as beam
import orjson
from apache_beam.metrics import Metrics
from confluent_kafka import KafkaError, Message, Producer

from transforms.adapters.kafka.bounded_reader import BoundedReader, open_bounded_reader
from transforms.adapters.kafka.clients import connectable
from transforms.adapters.telemetry.metric_names import METRICS_NAMESPACE
from transforms.domain.events.micro_batch import CONTROL, EVENTS, split_by_shard
from transforms.domain.events.record import Record, decode_produced

READ_EVENTS_URN: Final = "event_trigger:read_events:v1"
READ_CONTROL_URN: Final = "event_trigger:read_control:v1"
WRITE_TO_TOPIC_URN: Final = "event_trigger:write_to_topic:v1"

Batches = tuple[bytes, bytes]

_LOG: Final = logging.getLogger("event_trigger.kafka")


@dataclass(frozen=True)
class ReadSettings:
    """The payload of the read URNs, field by field. Times in ms, sizes in bytes or records.

    ``rules_topic`` is a second topic, with rule sets, which only ``ReadControl`` has.
    """

    topic: str | None
    consumer_config: Mapping[str, str]
    group_id: str
    starting_offsets: str
    user_shards: int
    max_parallelism: int
    rules_topic: str | None = None
    starting_timestamp_ms: int | None = None
    user_key: str = "record"
    linger_ms: int = 5
    max_batch_records: int = 1000
    max_batch_bytes: int = 1_000_000
    watermark_out_of_orderness_ms: int = 5000
    watermark_idleness_ms: int = 10_000
    partition_discovery_ms: int = 30_000
    skip_dead_partitions: Sequence[int] = ()


@dataclass(frozen=True)
class WriteSettings:
    """The payload of the write URN, field by field."""

    topic: str
    producer_config: Mapping[str, str]
    delivery_guarantee: str = "AT_LEAST_ONCE"
    transactional_id_prefix: str | None = None


@dataclass
class ReadEvents(beam.PTransform):
    """Read the events topic as micro-batches by user shard.

    Output: ``KV<bytes, bytes>``, Beam key and micro-batch (``domain.events.micro_batch``), in partition order. On Flink
    unbounded, exactly once with the checkpoint; elsewhere bounded, from the starting offsets to the ends at launch.
    """

    settings: ReadSettings
    urn: str = field(default=READ_EVENTS_URN, repr=False)
    kind: int = field(default=EVENTS, repr=False)

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[Batches]:
        """The bounded read that runners other than Flink run."""
        start = pbegin | beam.Impulse()
        return start | "Topic" >> beam.ParDo(_ReadTopicFn(self.settings, self.kind)).with_output_types(Batches)

    def to_runner_api_parameter(self, unused_context: Any) -> tuple[str, bytes]:
        """URN and payload for our job server."""
        return self.urn, orjson.dumps(asdict(self.settings))


@dataclass
class ReadControl(ReadEvents):
    """Read control topic and rules topic from their starts as micro-batches; without topics there is no output.

    Output: as ``ReadEvents``; a record goes to one user's shard or to all (``domain.events.micro_batch``).
    """

    urn: str = field(default=READ_CONTROL_URN, repr=False)
    kind: int = field(default=CONTROL, repr=False)


@dataclass
class WriteToTopic(beam.PTransform):
    """Write produced records to Kafka.

    Input: ``bytes``, produced records (``domain.events.record``). On Flink with the delivery guarantee of the settings;
    elsewhere at least once, each bundle flushed before it ends.
    """

    settings: WriteSettings

    def expand(self, records: beam.PCollection[bytes]) -> beam.PCollection[None]:
        """The write that runners other than Flink run."""
        return records | "Topic" >> beam.ParDo(_WriteTopicFn(self.settings)).with_output_types(None)

    def to_runner_api_parameter(self, unused_context: Any) -> tuple[str, bytes]:
        """URN and payload for our job server."""
        return WRITE_TO_TOPIC_URN, orjson.dumps(asdict(self.settings))


# For some runners Beam rebuilds the pipeline from its proto, and needs a constructor for each of our URNs.
def _constructor(transform: Any, settings: Any) -> Callable[[Any, bytes, Any], Any]:
    return lambda _, payload, __: transform(settings(**orjson.loads(payload)))


beam.PTransform.register_urn(READ_EVENTS_URN, None, _constructor(ReadEvents, ReadSettings))
beam.PTransform.register_urn(READ_CONTROL_URN, None, _constructor(ReadControl, ReadSettings))
beam.PTransform.register_urn(WRITE_TO_TOPIC_URN, None, _constructor(WriteToTopic, WriteSettings))


class _ReadTopicFn(beam.DoFn):
    def __init__(self, settings: ReadSettings, kind: int) -> None:
        self._settings = settings
        self._kind = kind
        self._tombstones = Metrics.counter(METRICS_NAMESPACE, "tombstones")
        self._out_of_range = Metrics.counter(METRICS_NAMESPACE, "offsets_out_of_range")
        self._skipped = Metrics.counter(METRICS_NAMESPACE, "offsets_skipped")

    def process(self, _: bytes) -> Iterator[Batches]:
        for topic in (self._settings.rules_topic, self._settings.topic):
            if topic is not None:
                yield from self._read(topic)

    def _read(self, topic: str) -> Iterator[Batches]:
        settings = self._settings
        config = {**settings.consumer_config, "group.id": settings.group_id}
        out_of_range = functools.partial(self._note_out_of_range, topic)
        with open_bounded_reader(config, topic, out_of_range) as reader:
            starts = _starts(reader, settings)
            if all(starts[partition] >= end for partition, end in reader.ends.items()):
                _LOG.warning("topic %r: no record from --starting_offsets=%s on", topic, settings.starting_offsets)
            for messages in reader.polls(starts, settings.max_batch_records):
                records = [_record(message) for message in messages if message.value() is not None]
                self._tombstones.inc(len(messages) - len(records))
                yield from split_by_shard(self._kind, topic, records, settings.user_shards, settings.user_key)

    def _note_out_of_range(self, topic: str, partition: int, offset: int, low: int) -> None:
        self._out_of_range.inc()
        self._skipped.inc(max(0, low - offset))
        _LOG.warning(
            "topic %r, partition %d: offset %d is out of range, the earliest is %d, reading goes on there; %s",
            topic,
            partition,
            offset,
            low,
            f"{low - offset} offsets are gone" if offset < low else "the topic was deleted and made again",
        )


def _starts(reader: BoundedReader, settings: ReadSettings) -> dict[int, int]:
    if settings.starting_offsets == "earliest":
        return reader.lows
    if settings.starting_offsets == "latest":
        return reader.ends
    if settings.starting_offsets == "timestamp":
        return reader.at(settings.starting_timestamp_ms or 0)
    return reader.committed()


def _record(message: Message) -> Record:
    return Record(message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value())


class _WriteTopicFn(beam.DoFn):
    def __init__(self, settings: WriteSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._producer = Producer(connectable(self._settings.producer_config))
        self._failed: list[str] = []

    def process(self, packed: bytes) -> None:
        record = decode_produced(packed)
        topic = record.topic or self._settings.topic
        while True:
            try:
                self._producer.produce(
                    topic, record.value, record.key, headers=record.headers, on_delivery=self._delivered
                )
                return
            except BufferError:
                self._producer.poll(0.1)  # the queue is full: let deliveries make room

    def finish_bundle(self) -> None:
        undelivered = self._producer.flush(60)
        if undelivered or self._failed:
            reasons = "; ".join(self._failed[:3]) or "no answer within 60 s"
            raise RuntimeError(
                f"topic {self._settings.topic}: {undelivered + len(self._failed)} not written: {reasons}"
            )

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(str(error))
