"""Records of a topic between two times, all partitions merged by record time."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pipeline.console import warn
from transforms.adapters.kafka.bounded_reader import BoundedReader, open_bounded_reader
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
    read = _Partitions(config, topic, is_stopped)
    with read.open() as reader:
        firsts = reader.lows if from_ms is None else reader.at(from_ms)
        ends = reader.ends if until_ms is None else reader.at(until_ms)
    for record in read.merged(firsts, ends):
        if (from_ms is None or record.timestamp_ms >= from_ms) and (until_ms is None or record.timestamp_ms < until_ms):
            yield record


def newest_records(
    config: Mapping[str, str], topic: str, most: int, is_stopped: Callable[[], bool] = lambda: False
) -> Iterator[Record]:
    """The newest records of a topic, at most ``most``, the same number of each partition; as ``records_between``.

    Raises:
        TopicReadError: as ``records_between``.
    """
    read = _Partitions(config, topic, is_stopped)
    with read.open() as reader:
        lows, ends = reader.lows, reader.ends
        each = max(1, most // max(1, len(ends)))
        firsts = {partition: max(lows[partition], end - each) for partition, end in ends.items()}
    yield from read.merged(firsts, ends)


class _Partitions:
    """Reads the partitions of a topic and merges them."""

    def __init__(self, config: Mapping[str, str], topic: str, is_stopped: Callable[[], bool]) -> None:
        self._config = {**_FETCHED_AHEAD, **config, "group.id": "event-trigger-backtest"}
        self._topic = topic
        self._is_stopped = is_stopped

    def open(self, partition: int | None = None) -> contextlib.AbstractContextManager[BoundedReader]:
        return open_bounded_reader(self._config, self._topic, self._note_trimmed, partition)

    def merged(self, firsts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Record]:
        """Records from the first offsets to the ends, ordered by record time."""
        partitions = [
            self._records_of(partition, first, ends[partition])
            for partition, first in firsts.items()
            if first < ends[partition]
        ]
        yield from heapq.merge(*partitions, key=lambda record: record.timestamp_ms)

    def _records_of(self, partition: int, first: int, end: int) -> Iterator[Record]:
        with self.open(partition) as reader:
            reader.ends[partition] = end
            for messages in reader.polls({partition: first}, _RECORDS_A_POLL):
                for message in messages:
                    if message.value() is not None:
                        yield Record(
                            partition, message.offset(), message.timestamp()[1], message.key(), message.value()
                        )
                if self._is_stopped():
                    return

    def _note_trimmed(self, partition: int, offset: int, low: int) -> None:
        warn(f"partition {partition} of {self._topic}: {low - offset} offsets from {offset} on were deleted meanwhile")
