"""Records of a topic between two times, all partitions merged by record time."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from transforms.domain.events.record import Record

_ANSWER_S: Final = 10
_POLL_S: Final = 0.5
_STALLED_S: Final = 60.0
_RECORDS_A_POLL: Final = 1000
# Each partition has its own consumer, which by default fetches 64 MB ahead.
_FETCHED_AHEAD: Final = {"queued.max.messages.kbytes": "4096", "queued.min.messages": "1000"}


def records_between(
    config: Mapping[str, str],
    topic: str,
    from_ms: int | None,
    until_ms: int | None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
    """Records of a topic between two times, ordered by record time; within a partition they keep their order.

    No offsets are committed.

    Args:
        config: librdkafka's properties.
        topic: the topic's name.
        from_ms: the first record time, ms since the epoch; None is the topic's beginning.
        until_ms: the time that ends it, exclusive; None is the topic's present end.
        is_stopped: called between polls; True ends the iteration early.

    Raises:
        KafkaException: the topic does not exist, a partition reports an error, or no record has come for a minute.
    """
    settings = {
        **_FETCHED_AHEAD,
        **config,
        "group.id": "event-trigger-backtest",
        "enable.auto.commit": "false",
        "auto.offset.reset": "error",
    }
    consumer = Consumer(settings)
    try:
        ranges = _ranges(consumer, topic, from_ms, until_ms)
    finally:
        consumer.close()
    partitions = [
        _partition(settings, topic, partition, first, end, is_stopped)
        for partition, (first, end) in ranges.items()
        if first < end
    ]
    for record in heapq.merge(*partitions, key=lambda record: record.timestamp_ms):
        if (from_ms is None or record.timestamp_ms >= from_ms) and (until_ms is None or record.timestamp_ms < until_ms):
            yield record


def _ranges(consumer: Consumer, topic: str, from_ms: int | None, until_ms: int | None) -> dict[int, tuple[int, int]]:
    """The first offset and the end of each partition."""
    metadata = consumer.list_topics(topic, timeout=_ANSWER_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    bounds = {
        partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ANSWER_S)
        for partition in metadata.partitions
    }
    highs = {partition: high for partition, (_, high) in bounds.items()}
    firsts, ends = (_offsets_at(consumer, topic, at_ms, highs) for at_ms in (from_ms, until_ms))
    return {
        partition: (low if from_ms is None else firsts[partition], ends[partition])
        for partition, (low, _) in bounds.items()
    }


def _offsets_at(consumer: Consumer, topic: str, at_ms: int | None, ends: dict[int, int]) -> dict[int, int]:
    """For each partition the first offset whose record is not older than ``at_ms``, or the partition's end."""
    if at_ms is None:
        return ends
    times = [TopicPartition(topic, partition, at_ms) for partition in ends]
    places = consumer.offsets_for_times(times, timeout=_ANSWER_S)
    return {place.partition: place.offset if place.offset >= 0 else ends[place.partition] for place in places}


def _partition(
    settings: Mapping[str, str], topic: str, partition: int, first: int, end: int, is_stopped: Callable[[], bool]
) -> Iterator[Record]:
    consumer = Consumer(settings)
    try:
        place = TopicPartition(topic, partition, first)
        consumer.assign([place])
        give_up_s = time.monotonic() + _STALLED_S
        while not is_stopped():
            messages = consumer.consume(_RECORDS_A_POLL, _POLL_S)
            for message in messages:
                if message.error():
                    raise KafkaException(message.error())
                if message.offset() < end and message.value() is not None:
                    yield Record(partition, message.offset(), message.timestamp()[1], message.key(), message.value())
            # The last message's offset is not enough: the transaction markers after it have offsets, too.
            if consumer.position([place])[0].offset >= end:
                return
            if messages:
                give_up_s = time.monotonic() + _STALLED_S
            elif time.monotonic() > give_up_s:
                silence = f"partition {partition} of {topic}: no records for {_STALLED_S:.0f} s"
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, silence))
    finally:
        consumer.close()
