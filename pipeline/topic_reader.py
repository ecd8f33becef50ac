"""A topic read once, from a time or its start to the end there is now, as read_committed readers see it; no Beam."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

_ANSWER_S: Final = 10.0
_SILENCE_S: Final = 30.0


class TopicReader:
    """All partitions of a topic; ``partitions`` are their numbers, none if it does not exist."""

    def __init__(self, consumer: Consumer, topic: str, since_ms: int | None) -> None:
        self._consumer = consumer
        metadata = consumer.list_topics(topic, timeout=_ANSWER_S).topics[topic]
        if metadata.error is not None and metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(metadata.error)
        self.partitions = list(metadata.partitions)
        starts = [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in self.partitions]
        if since_ms is not None and starts:
            for one in starts:
                one.offset = since_ms
            starts = consumer.offsets_for_times(starts, timeout=_ANSWER_S)
            for one in starts:
                one.offset = one.offset if one.offset >= 0 else OFFSET_END
        if starts:
            consumer.assign(starts)
        self._unread = set(self.partitions)

    def to_end(self) -> list[Message]:
        """Everything up to the end there is now."""
        return [message for messages in self.polls_to_end() for message in messages]

    def polls_to_end(self) -> Iterator[list[Message]]:
        """The same a poll at a time.

        Raises:
            KafkaException: the broker reports an error, or is silent.
        """
        give_up = time.monotonic() + _SILENCE_S
        while self._unread:
            found = self.poll(1.0)
            if found:
                give_up = time.monotonic() + _SILENCE_S
                yield found
            elif time.monotonic() > give_up:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"nothing read for {_SILENCE_S:.0f} s"))

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
def reading(config: Mapping[str, str], topic: str, since_ms: int | None = None) -> Iterator[TopicReader]:
    """A reader with librdkafka's properties, closed at the end."""
    own = {
        "group.id": "event-trigger-reader",  # required, never joined
        "enable.auto.commit": "false",
        "isolation.level": "read_committed",
        "enable.partition.eof": "true",
        "fetch.wait.max.ms": "10",  # the end is known when there is nothing more to fetch
    }
    consumer = Consumer({**config, **own})
    try:
        yield TopicReader(consumer, topic, since_ms)
    finally:
        consumer.close()
