"""Records of a topic between two times, all partitions merged by record time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pipeline.console import warn
from transforms.adapters.kafka.bounded_reader import open_bounded_reader
from transforms.domain.events.record import Record

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

    No offsets are committed. A partition that is trimmed meanwhile goes on at its earliest record, with a warning.

    Args:
        config: librdkafka's properties.
        topic: the topic's name.
        from_ms: the first record time, ms since the epoch; None is the topic's beginning.
        until_ms: the time that ends it, exclusive; None is the topic's present end.
        is_stopped: called between polls; True ends the iteration early.

    Raises:
        TopicReadError: the topic does not exist, a partition reports an error, or no record has come for a minute.
    """
    settings = {**_FETCHED_AHEAD, **config, "group.id": "event-trigger-backtest"}

    def note_trimmed(partition: int, offset: int, low: int) -> None:
        warn(f"partition {partition} of {topic}: {low - offset} offsets from {offset} on were deleted meanwhile")

    with open_bounded_reader(settings, topic, note_trimmed) as reader:
        firsts = reader.lows if from_ms is None else reader.at(from_ms)
        ends = reader.ends if until_ms is None else reader.at(until_ms)

    def records_of(partition: int) -> Iterator[Record]:
        with open_bounded_reader(settings, topic, note_trimmed, partition) as reader:
            reader.ends[partition] = ends[partition]
            for messages in reader.polls({partition: firsts[partition]}, _RECORDS_A_POLL):
                for message in messages:
                    if message.value() is not None:
                        yield Record(
                            partition, message.offset(), message.timestamp()[1], message.key(), message.value()
                        )
                if is_stopped():
                    return

    partitions = [records_of(partition) for partition, first in firsts.items() if first < ends[partition]]
    for record in heapq.merge(*partitions, key=lambda record: record.timestamp_ms):
        if (from_ms is None or record.timestamp_ms >= from_ms) and (until_ms is None or record.timestamp_ms < until_ms):
            yield record
