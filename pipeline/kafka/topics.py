"""Reading and writing topics for commands, on confluent-kafka; no Beam."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

ANSWER_S: Final = 10.0
READ_S: Final = 30.0


class TopicError(RuntimeError):
    """Kafka or a topic cannot be used as asked; the message names the topic and what is allowed."""


@contextlib.contextmanager
def saying(what: str) -> Iterator[None]:
    """Kafka's errors as ours, with what was being done."""
    try:
        yield
    except KafkaException as error:
        cause: Any = error.args[0]
        raise TopicError(f"{what}: {cause.str()}") from None


class TopicReader:
    """All partitions of a topic as read_committed readers see them; ``partitions`` is empty if there is no topic."""

    def __init__(self, consumer: Consumer, topic: str, since_ms: int | None, last: int | None = None) -> None:
        self._consumer = consumer
        metadata = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
        if metadata.error is not None and metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(metadata.error)
        self._topic = topic
        self.partitions = list(metadata.partitions)
        starts = [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in self.partitions]
        if since_ms is not None and starts:
            for one in starts:
                one.offset = since_ms
            starts = consumer.offsets_for_times(starts, timeout=ANSWER_S)
            for one in starts:
                one.offset = one.offset if one.offset >= 0 else OFFSET_END
        if last is not None:
            for one in starts:
                # Not OFFSET_END: that is looked up when reading begins, and what is written before then is missed.
                low, high = self._bounds(one.partition)
                one.offset = max(low, high - last)
        self._starts = {one.partition: sys.maxsize if one.offset == OFFSET_END else one.offset for one in starts}
        if starts:
            consumer.assign(starts)
        self._unread = set(self.partitions)
        self.share_read = 0.0  # how far ``records`` is, 0 to 1

    def to_end(self) -> list[Message]:
        """Everything up to the end there is now.

        Raises:
            TopicError: nothing comes for longer than it may.
        """
        return [message for messages in self._polls() for message in messages]

    def records(self) -> Iterator[Message]:
        """The same one by one, however many; what is written meanwhile is left out. Nothing else may be read after.

        Raises:
            TopicError: nothing comes for longer than it may.
        """
        bounds = {partition: self._bounds(partition) for partition in self._unread}
        ends = {partition: end for partition, (_, end) in bounds.items()}
        at = {partition: min(max(start, self._starts[partition]), end) for partition, (start, end) in bounds.items()}
        to_read = max(1, sum(ends.values()) - sum(at.values()))
        for messages in self._polls():
            for message in messages:
                partition, offset = message.partition(), message.offset()
                if offset >= ends[partition] - 1:
                    self._unread.discard(partition)
                if offset < ends[partition]:
                    at[partition] = offset + 1
                    self.share_read = 1 - (sum(ends.values()) - sum(at.values())) / to_read
                    yield message

    def record(self, partition: int, offset: int) -> Message | None:
        """The one record at an offset, if there is one. Nothing else may be read after.

        Raises:
            TopicError: it takes longer than it may.
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
        """What comes until all partitions are read; whoever takes it may take its time."""
        give_up = time.monotonic() + READ_S
        while self._unread:
            found = self.poll(1.0)
            if found:
                yield found
                give_up = time.monotonic() + READ_S
            elif time.monotonic() > give_up:
                raise TopicError(f"topic {self._topic!r}: nothing was read for {READ_S:.0f} s")

    def _bounds(self, partition: int) -> tuple[int, int]:
        where = TopicPartition(self._topic, partition)
        bounds: tuple[int, int] = self._consumer.get_watermark_offsets(where, timeout=ANSWER_S)
        return bounds

    def poll(self, timeout_s: float) -> list[Message]:
        """What comes within a time, or sooner."""
        found = []
        for message in self._consumer.consume(1000, min(timeout_s, 0.1)):
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._unread.discard(message.partition())
            elif not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                raise KafkaException(error)
        return found


@contextlib.contextmanager
def reading(
    config: Mapping[str, str], topic: str, since_ms: int | None = None, last: int | None = None
) -> Iterator[TopicReader]:
    """A reader of a topic from its beginning, or from ``since_ms`` on, or of the ``last`` offsets of each partition."""
    own = {
        "log_level": "0",
        "group.id": "event-trigger-commands",  # required, never joined
        "enable.auto.commit": "false",
        "auto.offset.reset": "error",  # an offset that is not there is told, not replaced by another
        "isolation.level": "read_committed",
        "enable.partition.eof": "true",
        "fetch.wait.max.ms": "10",  # the end is known when there is nothing more to fetch
    }
    consumer = Consumer({**config, **own})
    try:
        yield TopicReader(consumer, topic, since_ms, last)
    finally:
        consumer.close()


class TopicWriter:
    """Writes records and says of each whether the broker has it. Records of a key go where Java's clients put them."""

    def __init__(self, config: Mapping[str, str]) -> None:
        own = {
            "log_level": "0",
            "enable.idempotence": "true",
            "partitioner": "murmur2_random",
            # The broker refuses whole batches: one record that is too large would take others along.
            "batch.num.messages": "1",
        }
        self._producer = Producer({**own, **config})

    def topics(self) -> dict[str, int]:
        """How many partitions each topic has."""
        return {name: len(one.partitions) for name, one in self._producer.list_topics(timeout=ANSWER_S).topics.items()}

    def write(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        partition: int | None = None,
        told: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """Send a record off; ``told`` gets None once the broker has it, or why it has not."""

        def delivered(error: KafkaError | None, _: Message) -> None:
            told(None if error is None else error.str())

        where = {} if partition is None else {"partition": partition}
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=delivered, **where)
            except BufferError:
                self._producer.poll(0.1)  # the queue is full: let some go
                continue
            except KafkaException as error:  # larger than may be, no such partition
                told(error.args[0].str())
            self._producer.poll(0)
            return

    def flush(self) -> int:
        """Wait for all of them; how many are left when the broker does not answer any more."""
        left = len(self._producer)
        while left and (now_left := self._producer.flush(READ_S)) < left:
            left = now_left
        return left
