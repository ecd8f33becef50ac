"""Reads and writes Kafka topics: ``ReadEvents``, ``ReadControl``, ``WriteToTopic``.

Each transform has a URN and a JSON payload (runners/flink/connectors/README.md). Our Flink job server translates them
to Flink's own source and sink; every other runner ignores the URN and runs what ``expand`` builds, on confluent-kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import apache_beam as beam
import orjson
from apache_beam.metrics import Metrics
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from transforms.adapters.telemetry.metric_names import METRICS_NAMESPACE
from transforms.domain.events.micro_batch import CONTROL, EVENTS, split_by_shard
from transforms.domain.events.record import Record, decode_produced

READ_EVENTS_URN: Final = "event_trigger:read_events:v1"
READ_CONTROL_URN: Final = "event_trigger:read_control:v1"
WRITE_TO_TOPIC_URN: Final = "event_trigger:write_to_topic:v1"

Batches = tuple[bytes, bytes]

_POLL_S: Final = 1.0
_STALLED_S: Final = 60.0
_COORDINATOR_S: Final = 30.0
_COORDINATOR_RETRY_S: Final = 0.2
# The broker's errors while it finds or elects the group's coordinator: for the first group ever, after a restart.
_NO_COORDINATOR_YET: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


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

    def process(self, _: bytes) -> Iterator[Batches]:
        for topic in (self._settings.rules_topic, self._settings.topic):
            if topic is not None:
                yield from self._read(topic)

    def _read(self, topic: str) -> Iterator[Batches]:
        settings = self._settings
        consumer = Consumer({**settings.consumer_config, "group.id": settings.group_id, "enable.auto.commit": "false"})
        try:
            for messages in _bounded_polls(consumer, topic, settings):
                records = [_record(message) for message in messages if message.value() is not None]
                self._tombstones.inc(len(messages) - len(records))
                yield from split_by_shard(self._kind, topic, records, settings.user_shards, settings.user_key)
        finally:
            consumer.close()


def _bounded_polls(consumer: Consumer, topic: str, settings: ReadSettings) -> Iterator[list[Message]]:
    """Lists of messages of a topic, from the starting offsets to the ends at the time of the call.

    Raises:
        KafkaException: the topic does not exist, a partition reports an error, or no record comes for a minute.
    """
    lows, ends = _bounds(consumer, topic)
    positions = _starts(consumer, topic, settings, lows, ends)
    consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in positions.items()])
    unfinished = {partition for partition, offset in positions.items() if offset < ends[partition]}
    give_up_at = time.monotonic() + _STALLED_S
    while unfinished:
        messages = consumer.consume(settings.max_batch_records, _POLL_S)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
        # Progress is the position, not the last message, because transaction markers have offsets too.
        for position in consumer.position([TopicPartition(topic, partition) for partition in unfinished]):
            if position.offset >= ends[position.partition]:
                unfinished.discard(position.partition)
        bounded = [message for message in messages if message.offset() < ends[message.partition()]]
        if bounded:
            give_up_at = time.monotonic() + _STALLED_S
            yield bounded
        elif time.monotonic() > give_up_at:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"topic {topic}: no records for {_STALLED_S} s"))


def _bounds(consumer: Consumer, topic: str) -> tuple[dict[int, int], dict[int, int]]:
    """The first offsets by partition, and the ends."""
    metadata = consumer.list_topics(topic, timeout=10).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    lows, ends = {}, {}
    for partition in metadata.partitions:
        lows[partition], ends[partition] = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
    return lows, ends


def _starts(
    consumer: Consumer, topic: str, settings: ReadSettings, lows: dict[int, int], ends: dict[int, int]
) -> dict[int, int]:
    if settings.starting_offsets == "earliest":
        return lows
    if settings.starting_offsets == "latest":
        return ends
    if settings.starting_offsets == "timestamp":
        times = [TopicPartition(topic, partition, settings.starting_timestamp_ms) for partition in ends]
        positions, missing = consumer.offsets_for_times(times, timeout=10), ends
    else:
        positions = _committed(consumer, [TopicPartition(topic, partition) for partition in lows])
        missing = lows
    return {start.partition: start.offset if start.offset >= 0 else missing[start.partition] for start in positions}


def _committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """The group's offsets; waits for the group's coordinator, which confluent-kafka does not."""
    give_up_at = time.monotonic() + _COORDINATOR_S
    while True:
        try:
            offsets: list[TopicPartition] = consumer.committed(partitions, timeout=10)
        except KafkaException as error:
            if error.args[0].code() not in _NO_COORDINATOR_YET or time.monotonic() > give_up_at:
                raise
            time.sleep(_COORDINATOR_RETRY_S)
        else:
            return offsets


def _record(message: Message) -> Record:
    return Record(message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value())


class _WriteTopicFn(beam.DoFn):
    def __init__(self, settings: WriteSettings) -> None:
        self._settings = settings

    def setup(self) -> None:
        self._producer = Producer(dict(self._settings.producer_config))
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
