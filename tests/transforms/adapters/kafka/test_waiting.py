"""What a bounded reader waits for, and when it gives up; with a consumer that answers as Kafka does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from transforms.adapters.kafka import bounded_reader
from transforms.adapters.kafka.bounded_reader import BoundedReader, TopicReadError

MISSING_COORDINATOR = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


class Message:
    """A record, or an error of partition 0."""

    def __init__(self, offset: int, code: int | None = None) -> None:
        self._offset = offset
        self._error = None if code is None else KafkaError(code)

    def offset(self) -> int:
        return self._offset

    def partition(self) -> int:
        return 0

    def error(self) -> KafkaError | None:
        return self._error


class Metadata:
    error = None

    def __init__(self, partitions: int) -> None:
        self.partitions = dict.fromkeys(range(partitions), Metadata(0)) if partitions else {}
        self.topics = {"t": self}


class FakeConsumer:
    """Two partitions with offsets 2 to 9, the group at 7 of partition 0; ``codes`` are errors that it gives first."""

    def __init__(self, *codes: int, polls: Sequence[list[Message]] = ()) -> None:
        self.codes = list(codes)
        self._polls = iter(polls)
        self.position_of_0 = -1001

    def list_topics(self, topic: str, timeout: float) -> Metadata:
        return Metadata(2)

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        return 2 + place.partition, 9

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return [TopicPartition(place.topic, place.partition, -1001 if place.partition else 7) for place in partitions]

    def assign(self, places: list[TopicPartition]) -> None:
        pass

    def consume(self, most: int, timeout_s: float) -> list[Message]:
        messages = next(self._polls, [])
        for message in messages:
            if message.error() is None:
                self.position_of_0 = message.offset() + 1
        return messages

    def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(place.topic, place.partition, self.position_of_0) for place in places]


def reader(consumer: Any) -> BoundedReader:
    return BoundedReader(consumer, {}, "t", lambda *_: None, None)


def read(polls: Sequence[list[Message]]) -> list[int]:
    found = reader(FakeConsumer(polls=polls)).polls({0: 2}, 100)
    return [message.offset() for messages in found for message in messages]  # type: ignore[misc]


def test_a_group_s_coordinator_that_is_not_there_yet_is_waited_for() -> None:
    assert reader(FakeConsumer(*MISSING_COORDINATOR)).committed() == {0: 7, 1: 3}


def test_a_coordinator_is_waited_for_no_longer_than_it_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_reader, "_ELECTION_S", -1.0)
    with pytest.raises(TopicReadError, match=r"^topic 't': Broker: Not coordinator$"):
        reader(FakeConsumer(KafkaError.NOT_COORDINATOR)).committed()


def test_another_error_is_raised_at_once() -> None:
    group = FakeConsumer(KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.NOT_COORDINATOR)
    with pytest.raises(TopicReadError, match="authorization failed"):
        reader(group).committed()
    assert group.codes == [KafkaError.NOT_COORDINATOR]


def test_last_offsets_that_compaction_removed_end_a_partition() -> None:
    """No record ever carries the position to the end; only the broker's word that there are no more does."""
    assert read([[Message(2), Message(4)], [Message(9, KafkaError._PARTITION_EOF)]]) == [2, 4]


def test_an_end_that_comes_before_the_end_found_at_first_is_not_taken() -> None:
    """A new leader may lag for a moment."""
    early_end = Message(5, KafkaError._PARTITION_EOF)
    assert read([[Message(4), early_end], [], [Message(7), Message(8)]]) == [4, 7, 8]


def test_a_broker_that_is_away_for_a_moment_ends_nothing() -> None:
    away = [Message(-1, KafkaError._ALL_BROKERS_DOWN), Message(-1, KafkaError._TRANSPORT)]
    assert read([[Message(2), *away], away, [Message(8)]]) == [2, 8]


def test_an_error_that_does_not_pass_is_raised() -> None:
    with pytest.raises(TopicReadError, match="authorization failed"):
        read([[Message(2)], [Message(-1, KafkaError.TOPIC_AUTHORIZATION_FAILED)]])


def test_silence_ends_with_the_place_that_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_reader, "_STALLED_S", 0.0)
    with pytest.raises(
        TopicReadError, match=r"^topic 't': nothing was read for 0 s; partition 0 is at 6, its end is 9$"
    ):
        read([[Message(5)]])
