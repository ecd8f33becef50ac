"""Reads the bundled stream instead of Kafka."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam

from pipeline.embedded.stream import bundled_records
from transforms.domain.events.micro_batch import EVENTS, split_by_shard
from transforms.domain.events.record import NO_TIME, Record

_RECORDS_A_BATCH = 100


@dataclass
class ReadBundledEvents(beam.PTransform):
    """The bundled stream as micro-batches by user shard.

    Output: ``KV<bytes, bytes>`` in the format of ``ReadEvents``; topic and offsets are made up,
    and records have no Kafka time.
    """

    topic: str
    user_shards: int
    user_key: str

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[tuple[bytes, bytes]]:
        """Make all batches from one element, which keeps the stream's order."""
        batches = beam.FlatMap(lambda _: self._batches()).with_output_types(tuple[bytes, bytes])
        return pbegin | beam.Impulse() | "Batches" >> batches

    def _batches(self) -> Iterator[tuple[bytes, bytes]]:
        records = (Record(0, offset, NO_TIME, key, value) for offset, (key, value) in enumerate(bundled_records()))
        while chunk := list(itertools.islice(records, _RECORDS_A_BATCH)):
            yield from split_by_shard(EVENTS, self.topic, chunk, self.user_shards, self.user_key)
