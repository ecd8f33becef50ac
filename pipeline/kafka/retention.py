"""Whether Kafka still has what was written to a topic since a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.kafka.topics import existing_topic


@dataclass(frozen=True, slots=True)
class Kept:
    """What Kafka kept since a time: all, except perhaps records of ``partitions``."""

    partitions: tuple[int, ...]

    def __str__(self) -> str:
        if not self.partitions:
            return "yes"
        return f"no, Kafka deleted later events of partition {', '.join(map(str, self.partitions))}"


def kept_since(config: Mapping[str, str], topic: str, times_ms: Sequence[int]) -> list[Kept]:
    """For each time, which partitions may have lost records that were written since.

    A partition certainly has them all if nothing was ever deleted, or if a record from before that time is left.

    Raises:
        TopicError: the topic does not exist, or Kafka does not answer.
    """
    with existing_topic(config, topic, f"events topic {topic!r}") as reader:
        bounds = reader.bounds()
        return [Kept(lacking(bounds, reader.first_offsets_since(at_ms))) for at_ms in times_ms]


def lacking(bounds: Mapping[int, tuple[int, int]], firsts: Mapping[int, int | None]) -> tuple[int, ...]:
    """The partitions that may have lost records, given their first offsets and ends, and their first records since."""
    lost = []
    for partition, (start, end) in sorted(bounds.items()):
        first = firsts[partition]
        if start > 0 and start >= (end if first is None else first):
            lost.append(partition)
    return tuple(lost)
