"""The ledger's topic as Kafka keeps it: appends, reading from given offsets on, ends of partitions."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from transforms.adapters.kafka.clients import connectable

_LOG: Final = logging.getLogger("event_trigger.ledger")
_ANSWER_S: Final = 5.0
_BATCH: Final = 500
# Answers that Kafka has not acknowledged are kept without a time limit, some 20 MB of them.
_UNACKNOWLEDGED: Final = 100_000
_PRODUCER: Final = {
    "acks": "all",
    "linger.ms": "0",  # who appends does it in batches
    # A request has records of one partition. One at a time, records of other shards would wait: twice as many would be
    # unacknowledged. A request that is repeated may come after later ones; until then its records are unacknowledged.
    "max.in.flight.requests.per.connection": "5",
    "enable.idempotence": "false",
    "message.timeout.ms": "0",
    "queue.buffering.max.messages": str(_UNACKNOWLEDGED),
}
_CONSUMER: Final = {
    "group.id": "event-trigger-deliveries",  # librdkafka requires one; no group is joined
    "enable.auto.commit": "false",
    "auto.offset.reset": "earliest",  # after retention has deleted what a position names
    # Every append would be an answer of its own; this way there are ten a second.
    "fetch.min.bytes": "65536",
    "fetch.wait.max.ms": "100",
    "isolation.level": "read_uncommitted",
}

# Monotonic, and goes on while the machine sleeps, where there is such a clock.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Record = tuple[int, int, bytes]  # partition, offset, value
Done = Callable[[bool], None]


def lease_clock() -> float:
    """The time of leases [s]; a process or machine that was stopped sees how long."""
    return time.clock_gettime(_CLOCK)


class Log(Protocol):
    """Partitions that can be appended to and read. ``append`` may be called in any thread."""

    def append(self, partition: int, value: bytes, done: Done) -> None:
        """Append a record; ``done`` hears, in ``read``, whether it is stored."""

    def follow(self, offsets: Mapping[int, int | None]) -> None:
        """Read these partitions from these offsets on (None: the earliest), and no others."""

    def read(self, timeout_s: float) -> list[Record]:
        """The next records in order, as soon as there are some; what is done hears of it."""

    def ask_ends(self, partitions: Collection[int]) -> None:
        """Ask where partitions end; one question at a time."""

    def ends(self) -> tuple[float, dict[int, int]] | None:
        """The answer, once: when it was asked for (``lease_clock``), and the offset after the last record of each."""


class KafkaLog:
    """A topic.

    Args:
        config: properties of a Kafka client, as librdkafka takes them.
        topic: its name.

    Raises:
        SecretError: a secret cannot be read.
        KafkaException: a property cannot be used.
    """

    def __init__(self, config: Mapping[str, str], topic: str) -> None:
        client = connectable({"log_level": "0", **config})
        self._topic = topic
        self._producer = Producer({**client, **_PRODUCER})
        self._consumer = Consumer({**client, **_CONSUMER})
        self._admin = AdminClient(client)
        self._asked_s = 0.0
        self._asked: dict[int, Any] = {}

    def append(self, partition: int, value: bytes, done: Done) -> None:
        """Append a record."""
        try:
            self._producer.produce(
                self._topic, value, partition=partition, on_delivery=lambda error, _: done(error is None)
            )
        except (BufferError, KafkaException):
            done(False)

    def follow(self, offsets: Mapping[int, int | None]) -> None:
        """Read from these offsets on."""
        self._consumer.assign(
            [
                TopicPartition(self._topic, partition, OFFSET_BEGINNING if offset is None else offset)
                for partition, offset in offsets.items()
            ]
        )

    def read(self, timeout_s: float) -> list[Record]:
        """The next records."""
        self._producer.poll(0)
        self._admin.poll(0)
        first = self._consumer.poll(timeout_s)
        messages = [] if first is None else [first, *self._consumer.consume(_BATCH, 0)]
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append((message.partition(), message.offset(), message.value() or b""))
            elif error.code() != KafkaError._PARTITION_EOF:
                _LOG.debug("deliveries topic %r: %s", self._topic, error.str())
        return records

    def ask_ends(self, partitions: Collection[int]) -> None:
        """Ask for the ends, unless the last question is still open."""
        if self._asked and not all(future.done() for future in self._asked.values()):
            return
        self._asked_s = lease_clock()
        request = {TopicPartition(self._topic, partition): OffsetSpec.latest() for partition in partitions}
        with contextlib.suppress(KafkaException):
            answers = self._admin.list_offsets(request, request_timeout=_ANSWER_S)
            self._asked = {place.partition: future for place, future in answers.items()}

    def ends(self) -> tuple[float, dict[int, int]] | None:
        """The ends of the partitions whose leaders answered."""
        if not self._asked or not all(future.done() for future in self._asked.values()):
            return None
        asked, self._asked = self._asked, {}
        ends = {number: int(future.result().offset) for number, future in asked.items() if future.exception() is None}
        return (self._asked_s, ends) if ends else None
