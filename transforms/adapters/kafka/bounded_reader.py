"""Reads partitions of a topic up to the ends that they had when the reading began, on confluent-kafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from transforms.adapters.kafka.clients import connectable
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.base.secret_references import SecretError

_ANSWER_S: Final = 10.0
_POLL_S: Final = 0.2
_STALLED_S: Final = 60.0
_RETRY_S: Final = 0.2
# How long a leader or a group's coordinator may be missing: after a start of the broker, for the first group ever.
_ELECTION_S: Final = 30.0
# What the consumer needs so that no offset is replaced silently and each partition reports its end.
_FIXED: Final = {"enable.auto.commit": "false", "auto.offset.reset": "error", "enable.partition.eof": "true"}
_OUT_OF_RANGE: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
_PASSING: Final = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
)

_T = TypeVar("_T")
# Partition, the offset that reading should have begun at, and the earliest one that there is, where it begins instead.
OnOutOfRange = Callable[[int, int, int], None]


class TopicReadError(EventTriggerError, RuntimeError):
    """A topic cannot be read; the message names the topic, the partition and Kafka's reason."""


@contextlib.contextmanager
def open_bounded_reader(
    config: Mapping[str, str], topic: str, on_out_of_range: OnOutOfRange, partition: int | None = None
) -> Iterator[BoundedReader]:
    """A reader of the records that the topic has now.

    Args:
        config: librdkafka's properties, ``group.id`` among them. No offsets are committed.
        topic: the topic's name.
        on_out_of_range: is told of each partition whose next offset is no longer, or not yet, in the topic.
        partition: the only partition to read; None: all.

    Raises:
        TopicReadError: the topic does not exist, or Kafka does not answer.
    """
    try:
        consumer = Consumer(connectable({**config, **_FIXED}))
    except KafkaException as error:  # a property that cannot be used
        raise TopicReadError(f"topic {topic!r}: {error.args[0].str()}") from None
    except SecretError as error:
        raise TopicReadError(f"topic {topic!r}: {error}") from None
    try:
        yield BoundedReader(consumer, config, topic, on_out_of_range, partition)
    finally:
        consumer.close()


class BoundedReader:
    """Partitions with their first offsets (``lows``) and their ends as readers of the isolation level see them."""

    def __init__(
        self,
        consumer: Consumer,
        config: Mapping[str, str],
        topic: str,
        on_out_of_range: OnOutOfRange,
        partition: int | None,
    ) -> None:
        self._consumer = consumer
        self._config = config
        self._topic = topic
        self._on_out_of_range = on_out_of_range
        metadata = self._ask(lambda: _existing(consumer.list_topics(topic, timeout=_ANSWER_S).topics[topic]))
        self.lows: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        for number in sorted(metadata.partitions) if partition is None else (partition,):
            self.lows[number], self.ends[number] = self._bounds(number)

    def committed(self) -> dict[int, int]:
        """Where the group goes on: at its offset, or at the earliest record if it has none or one out of range."""
        places = self._ask(lambda: _each(self._consumer.committed(self._places(self.lows), timeout=_ANSWER_S)))
        starts = {}
        for place in places:
            partition, start, low, end = place.partition, place.offset, *self._range(place.partition)
            if start < 0:
                start = low
            elif start < low or (start > end and start > self._high_watermark(partition)):
                self._on_out_of_range(partition, start, low)
                start = low
            starts[partition] = start
        return starts

    def at(self, time_ms: int) -> dict[int, int]:
        """The first offset of each partition whose record is not older than a time; the end if there is none."""
        times = self._places(dict.fromkeys(self.ends, time_ms))
        places = self._ask(lambda: _each(self._consumer.offsets_for_times(times, timeout=_ANSWER_S)))
        ends = self.ends
        return {place.partition: place.offset if place.offset >= 0 else ends[place.partition] for place in places}

    def polls(self, starts: Mapping[int, int], most: int) -> Iterator[list[Message]]:
        """Lists of up to ``most`` records from ``starts`` to the ends; some are empty.

        A partition that is trimmed meanwhile goes on at its earliest record.

        Raises:
            TopicReadError: a partition reports an error that does not pass, or nothing was read for a minute. The
                time that the caller takes does not count.
        """
        positions = {partition: start for partition, start in starts.items() if start < self.ends[partition]}
        self._consumer.assign(self._places(positions))
        silent_since = time.monotonic()
        while positions:
            before = dict(positions)
            records, out_of_range = [], []
            for message in self._consumer.consume(most, _POLL_S):
                error = message.error()
                if error is None:
                    if message.offset() < self.ends[message.partition()]:
                        records.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Also where the last offsets are those of records that compaction removed.
                    self._reach(positions, message.partition(), message.offset())
                elif error.code() in _OUT_OF_RANGE:
                    out_of_range.append(message.partition())
                elif error.code() not in _PASSING and not error.retriable():
                    raise self._error(error)
            # Progress is the position, not the last record: transaction markers have offsets, too.
            for place in self._consumer.position(self._places(positions)):
                if place.offset >= 0:
                    self._reach(positions, place.partition, place.offset)
            if out_of_range:
                for partition in positions.keys() & out_of_range:
                    self._continue_at_earliest(positions, partition)
                self._consumer.assign(self._places(positions))  # librdkafka does not seek in a partition that failed
            yield records
            if records or positions != before:
                silent_since = time.monotonic()
            elif time.monotonic() > silent_since + _STALLED_S:
                partition, position = next(iter(positions.items()))
                raise TopicReadError(
                    f"topic {self._topic!r}: nothing was read for {_STALLED_S:.0f} s; partition {partition} is at "
                    f"{position}, its end is {self.ends[partition]}"
                )

    def _reach(self, positions: dict[int, int], partition: int, position: int) -> None:
        """Note how far a partition is read; one that is read to its end is taken out of ``positions``."""
        if partition in positions:
            positions[partition] = max(positions[partition], position)
            if positions[partition] >= self.ends[partition]:
                del positions[partition]

    def _continue_at_earliest(self, positions: dict[int, int], partition: int) -> None:
        low, end = self._bounds(partition)
        self._on_out_of_range(partition, positions[partition], low)
        self.ends[partition] = min(self.ends[partition], end)  # shorter where the log was truncated
        positions[partition] = low
        self._reach(positions, partition, low)

    def _range(self, partition: int) -> tuple[int, int]:
        return self.lows[partition], self.ends[partition]

    def _bounds(self, partition: int) -> tuple[int, int]:
        place = TopicPartition(self._topic, partition)
        bounds: tuple[int, int] = self._ask(lambda: self._consumer.get_watermark_offsets(place, timeout=_ANSWER_S))
        return bounds

    def _high_watermark(self, partition: int) -> int:
        """The end of a partition with the records of open transactions."""
        place = TopicPartition(self._topic, partition)
        admin = AdminClient(connectable(_without_consumer_properties(self._config)))
        request = {place: OffsetSpec.latest()}
        return self._ask(
            lambda: int(
                admin.list_offsets(request, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_ANSWER_S)[
                    place
                ]
                .result()
                .offset
            )
        )

    def _places(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]

    def _ask(self, question: Callable[[], _T]) -> _T:
        """The broker's answer; waits for leaders and the group's coordinator, which confluent-kafka does not."""
        give_up_at = time.monotonic() + _ELECTION_S
        while True:
            try:
                return question()
            except KafkaException as error:
                cause: KafkaError = error.args[0]
                if cause.code() not in _PASSING or time.monotonic() > give_up_at:
                    raise self._error(cause) from None
                time.sleep(_RETRY_S)

    def _error(self, cause: KafkaError) -> TopicReadError:
        return TopicReadError(f"topic {self._topic!r}: {cause.str()}")


def _existing(metadata: Any) -> Any:
    for item in (metadata, *metadata.partitions.values()):
        # A partition of which a replica is missing can be read.
        if item.error is not None and item.error.code() != KafkaError.REPLICA_NOT_AVAILABLE:
            raise KafkaException(item.error)
    return metadata


def _each(places: list[TopicPartition]) -> list[TopicPartition]:
    for place in places:
        if place.error is not None:
            raise KafkaException(place.error)
    return places


def _without_consumer_properties(config: Mapping[str, str]) -> dict[str, str]:
    """Without what an admin client only warns about."""
    return {"log_level": "0", **{name: value for name, value in config.items() if name != "group.id"}}
