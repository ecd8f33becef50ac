"""Reading and writing topics for commands, on confluent-kafka; no Beam."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.console import did_you_mean
from pipeline.errors import PipelineError
from pipeline.kafka.security import advice_for
from transforms.adapters.kafka.clients import connectable, reasons_since
from transforms.domain.base.secret_references import SecretError

ANSWER_S: Final = 10.0
READ_S: Final = 30.0
_SILENCE: Final = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
)


class TopicError(PipelineError, RuntimeError):
    """Kafka or a topic cannot be used; the message names the topic and what is allowed."""


@contextlib.contextmanager
def topic_errors(description: str, config: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turn Kafka's exceptions into ``TopicError``s whose message begins with ``description``.

    With the client's ``config`` the message of brokers that do not answer says where they should be.
    """
    with reasons_since() as reasons:
        try:
            yield
        except KafkaException as error:
            failed: Any = error.args[0]
        except SecretError as error:
            raise TopicError(f"{description}: {error}") from None
        else:
            return
    # Errors of the connection say more than the call, which only waited; the first comes before its consequences.
    reason = next((reason for reason in reasons if advice_for(reason)), failed.str())
    advice = advice_for(reason)
    if advice is None and config is not None and failed.code() in _SILENCE:
        raise TopicError(
            f"{description}: Kafka at {config.get('bootstrap.servers')} does not answer: start the broker, open the "
            "way to it or correct --bootstrap_servers"
        )
    raise TopicError(f"{description}: {reason}{f' -> {advice}' if advice else ''}")


class TopicReader:
    """Reads all partitions of a topic, committed records only.

    ``partitions`` is empty if the topic does not exist. ``share_read`` is how far ``records`` is, 0 to 1.
    """

    def __init__(self, consumer: Consumer, topic: str, since_ms: int | None, last: int | None = None) -> None:
        self._consumer = consumer
        metadata = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
        if metadata.error is not None and metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(metadata.error)
        self._topic = topic
        self.partitions = list(metadata.partitions)
        starts = [TopicPartition(topic, partition, confluent_kafka.OFFSET_BEGINNING) for partition in self.partitions]
        if since_ms is not None and starts:
            for start in starts:
                start.offset = since_ms
            starts = consumer.offsets_for_times(starts, timeout=ANSWER_S)
            for start in starts:
                start.offset = start.offset if start.offset >= 0 else confluent_kafka.OFFSET_END
        if last is not None:
            for start in starts:
                # OFFSET_END would be resolved at the first poll and miss records that are written before it.
                low, high = self._bounds(start.partition)
                start.offset = max(low, high - last)
        self._starts = {
            start.partition: sys.maxsize if start.offset == confluent_kafka.OFFSET_END else start.offset
            for start in starts
        }
        if starts:
            consumer.assign(starts)
        self._unread = set(self.partitions)
        self.share_read = 0.0

    def other_topics(self) -> list[str]:
        """The names of the topics that there are."""
        return list(self._consumer.list_topics(timeout=ANSWER_S).topics)

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Of each partition the first offset and the end."""
        return {partition: self._bounds(partition) for partition in self.partitions}

    def first_offsets_since(self, at_ms: int) -> dict[int, int | None]:
        """Of each partition the offset of the first record of this time or later; None if there is none."""
        asked = [TopicPartition(self._topic, partition, at_ms) for partition in self.partitions]
        found = self._consumer.offsets_for_times(asked, timeout=ANSWER_S)
        return {place.partition: place.offset if place.offset >= 0 else None for place in found}

    def to_end(self) -> list[Message]:
        """All records up to the topic's present end.

        Raises:
            TopicError: no record has come for ``READ_S`` seconds.
        """
        return [message for messages in self._polls() for message in messages]

    def records(self) -> Iterator[Message]:
        """The same records one by one, without those written after the call. The reader cannot be used afterwards.

        Raises:
            TopicError: no record has come for ``READ_S`` seconds.
        """
        positions, ends = {}, {}
        for partition in self._unread:
            start, ends[partition] = self._bounds(partition)
            positions[partition] = min(max(start, self._starts[partition]), ends[partition])
        to_read = max(1, sum(ends.values()) - sum(positions.values()))
        for messages in self._polls():
            for message in messages:
                partition, offset = message.partition(), message.offset()
                if offset >= ends[partition] - 1:
                    self._unread.discard(partition)
                if offset < ends[partition]:
                    positions[partition] = offset + 1
                    self.share_read = 1 - (sum(ends.values()) - sum(positions.values())) / to_read
                    yield message

    def record(self, partition: int, offset: int) -> Message | None:
        """The record at an offset, or None if there is none. The reader cannot be used afterwards.

        Raises:
            TopicError: no record has come for ``READ_S`` seconds.
        """
        if partition not in self.partitions:
            return None
        start, end = self._bounds(partition)
        if not start <= offset < end:
            return None
        self._consumer.assign([TopicPartition(self._topic, partition, offset)])
        self._unread = {partition}
        for messages in self._polls():
            for message in messages:
                if message.partition() == partition and message.offset() >= offset:
                    return message if message.offset() == offset else None
        return None

    def _polls(self) -> Iterator[list[Message]]:
        """Batches of records until all partitions are read. The time that the caller takes does not count."""
        give_up_s = time.monotonic() + READ_S
        while self._unread:
            messages = self.poll(1.0)
            if messages:
                yield messages
                give_up_s = time.monotonic() + READ_S
            elif time.monotonic() > give_up_s:
                raise TopicError(f"topic {self._topic!r}: nothing was read for {READ_S:.0f} s")

    def _bounds(self, partition: int) -> tuple[int, int]:
        """The first offset and the end of a partition."""
        place = TopicPartition(self._topic, partition)
        bounds: tuple[int, int] = self._consumer.get_watermark_offsets(place, timeout=ANSWER_S)
        return bounds

    def poll(self, timeout_s: float) -> list[Message]:
        """The records that arrive within a time; returns as soon as there are some.

        Raises:
            KafkaException: a partition reports an error that does not pass.
        """
        messages = []
        for message in self._consumer.consume(1000, min(timeout_s, 0.1)):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._unread.discard(message.partition())
            elif not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                raise KafkaException(error)
        return messages


@contextlib.contextmanager
def existing_topic(
    config: Mapping[str, str], topic: str, description: str, since_ms: int | None = None, last: int | None = None
) -> Iterator[TopicReader]:
    """As ``open_reader``, of a topic that has to exist. Error messages begin with ``description``.

    Raises:
        TopicError: the topic does not exist, or Kafka does not answer.
    """
    with topic_errors(description, config), open_reader(config, topic, since_ms, last) as reader:
        if not reader.partitions:
            hint = did_you_mean(topic, reader.other_topics())
            raise TopicError(f"{description} does not exist{f'; {hint}' if hint else ''}")
        yield reader


@contextlib.contextmanager
def open_reader(
    config: Mapping[str, str], topic: str, since_ms: int | None = None, last: int | None = None
) -> Iterator[TopicReader]:
    """A reader of a topic from its beginning, or from ``since_ms`` on, or of the ``last`` offsets of each partition.

    Raises:
        KafkaException: Kafka does not answer.
    """
    fixed = {
        "log_level": "0",
        "group.id": "event-trigger-commands",  # librdkafka requires one; no group is joined
        "enable.auto.commit": "false",
        "auto.offset.reset": "error",  # a missing offset is an error, not replaced by another
        "isolation.level": "read_committed",
        "enable.partition.eof": "true",
        "fetch.wait.max.ms": "10",  # the end is known when there is nothing more to fetch
    }
    consumer = Consumer(connectable({**config, **fixed}))
    try:
        yield TopicReader(consumer, topic, since_ms, last)
    finally:
        consumer.close()


class TopicWriter:
    """Writes records, and reports for each whether the broker has it. A key goes to the partition of Java's clients."""

    def __init__(self, config: Mapping[str, str]) -> None:
        defaults = {
            "log_level": "0",
            "enable.idempotence": "true",
            "partitioner": "murmur2_random",
            # The broker refuses whole batches: one record that is too large would take others along.
            "batch.num.messages": "1",
        }
        self._producer = Producer(connectable({**defaults, **config}))

    def topics(self) -> dict[str, int]:
        """The number of partitions of each topic."""
        try:
            topics = self._producer.list_topics(timeout=ANSWER_S).topics
        finally:
            self._producer.poll(0)  # why there is no connection comes through callbacks
        return {name: len(topic.partitions) for name, topic in topics.items()}

    def write(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        partition: int | None = None,
        on_result: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """Send a record; ``on_result`` gets None once the broker has it, otherwise the error."""

        def delivered(error: KafkaError | None, _: Message) -> None:
            on_result(None if error is None else error.str())

        placement = {} if partition is None else {"partition": partition}
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=delivered, **placement)
            except BufferError:
                self._producer.poll(0.1)  # the queue is full: wait until it has room
                continue
            except KafkaException as error:  # the record is too large, or there is no such partition
                on_result(error.args[0].str())
            self._producer.poll(0)
            return

    def flush(self) -> int:
        """Wait for the broker's answers; returns how many records are left if it stops answering."""
        left = len(self._producer)
        while left and (now_left := self._producer.flush(READ_S)) < left:
            left = now_left
        return left


def send_control_record(config: Mapping[str, str], topic: str, key: bytes, value: bytes) -> None:
    """Send a record and wait until the broker has it.

    Raises:
        TopicError: the topic does not exist, or Kafka refuses the record or does not answer.
    """
    description = f"control topic {topic!r}"
    errors: list[str] = []
    with topic_errors(description, config):
        writer = TopicWriter(config)
        if topic not in writer.topics():
            raise TopicError(f"{description} does not exist")
        writer.write(topic, key, value, on_result=lambda error: errors.append(error) if error else None)
        if writer.flush():
            errors.append("no answer")
    if errors:
        raise TopicError(f"{description}: {errors[0]}")
