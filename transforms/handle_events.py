"""The one stateful step: a PTransform and its DoFn, which hands every batch and timer to ``runtime.shard_runtime``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from transforms.domain.events.micro_batch import decode_batch, shard_of_key
from transforms.domain.shard.journal_elements import JournalElement, JournalEntry, decode_element, encode_element
from transforms.runtime.clocks import Clock, wall_clock_ms
from transforms.runtime.outputs import ACTIONS, DEBUG, RECORDS
from transforms.runtime.settings import HandleSettings, WebhookSettings
from transforms.runtime.shard_runtime import ShardRuntime, ShardServices

__all__ = ["ACTIONS", "DEBUG", "RECORDS", "HandleEvents", "HandleSettings", "JournalCoder", "WebhookSettings"]


@dataclass
class HandleEvents(beam.PTransform):
    """Find each user's state, evaluate the rules, decide the actions.

    Input: ``KV<bytes, bytes>``, user shard and micro-batch (``domain.events.micro_batch``), events and control records
    mixed. Output: ``debug``, enriched events (JSON bytes) of debug actions; ``actions`` and ``records``, produced
    records (``domain.events.record``) for the actions topic, and dead letters, inspections, decisions and audit records
    for theirs. Events of a user keep their order. State is exactly once with the runner's checkpoint; what is emitted
    is a pure function of it.
    """

    settings: HandleSettings
    clock: Clock = wall_clock_ms

    def expand(self, batches: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """One ParDo with tagged outputs."""
        outputs = batches | "Shard" >> beam.ParDo(_HandleFn(self.settings, self.clock)).with_outputs(
            DEBUG, ACTIONS, RECORDS
        )
        for tag in (DEBUG, ACTIONS, RECORDS):
            # Beam takes tagged outputs for Any, which would pickle them and which Java cannot read.
            outputs[tag].element_type = bytes
        return outputs


class JournalCoder(coders.Coder):
    """Elements of the bags of ``domain.shard.journal``. Part of the state's contract: old bytes stay readable."""

    def encode(self, value: JournalElement) -> bytes:
        """The stored bytes; marks an entry as written, so that the journal may free its bytes."""
        stored = encode_element(value)
        if isinstance(value, JournalEntry):
            value.is_written = True
        return stored

    def decode(self, encoded: bytes) -> JournalElement:
        """The element, its bytes kept for folding."""
        return decode_element(encoded)

    def is_deterministic(self) -> bool:
        """Equal elements have equal bytes."""
        return True

    def to_type_hint(self) -> Any:
        """Journal elements have no common Beam type."""
        return Any


class _HandleFn(beam.DoFn):
    JOURNAL = BagStateSpec("journal_v1", JournalCoder())
    JOURNAL_2 = BagStateSpec("journal_v2", JournalCoder())
    META = ReadModifyWriteStateSpec("meta_v1", coders.BytesCoder())
    IDLE = TimerSpec("idle", TimeDomain.REAL_TIME)
    PENDING = TimerSpec("pending", TimeDomain.REAL_TIME)
    STREAM = TimerSpec("stream", TimeDomain.WATERMARK)

    def __init__(self, settings: HandleSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    def setup(self) -> None:
        self._services = ShardServices(self._settings, self._clock)

    def start_bundle(self) -> None:
        self._services.metrics.start_bundle()

    def finish_bundle(self) -> None:
        self._services.metrics.finish_bundle()

    def teardown(self) -> None:
        self._services.rule_sets.close()  # the process's resources stay open

    def _number(self, key: bytes) -> int | None:
        """The shard's number, where it is needed."""
        return None if self._services.ledger is None else shard_of_key(key)

    def process(
        self,
        element: tuple[bytes, bytes],
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        journal_2: Any = beam.DoFn.StateParam(JOURNAL_2),
        meta: Any = beam.DoFn.StateParam(META),
        idle: Any = beam.DoFn.TimerParam(IDLE),
        pending: Any = beam.DoFn.TimerParam(PENDING),
        stream: Any = beam.DoFn.TimerParam(STREAM),
    ) -> Iterator[Any]:
        key, payload = element
        shard = ShardRuntime(self._services, (journal, journal_2), meta, idle, pending, stream, self._number(key))
        return shard.handle_batch(decode_batch(payload), shard_of_key(key) if self._settings.user_shards else None)

    @on_timer(IDLE)
    def on_idle(
        self,
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        journal_2: Any = beam.DoFn.StateParam(JOURNAL_2),
        meta: Any = beam.DoFn.StateParam(META),
        idle: Any = beam.DoFn.TimerParam(IDLE),
        pending: Any = beam.DoFn.TimerParam(PENDING),
        stream: Any = beam.DoFn.TimerParam(STREAM),
        key: Any = beam.DoFn.KeyParam,
    ) -> Iterator[Any]:
        shard = ShardRuntime(self._services, (journal, journal_2), meta, idle, pending, stream, self._number(key))
        shard.memory.idle_due_ms = None
        return shard.handle_due()

    @on_timer(PENDING)
    def on_pending(
        self,
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        journal_2: Any = beam.DoFn.StateParam(JOURNAL_2),
        meta: Any = beam.DoFn.StateParam(META),
        idle: Any = beam.DoFn.TimerParam(IDLE),
        pending: Any = beam.DoFn.TimerParam(PENDING),
        stream: Any = beam.DoFn.TimerParam(STREAM),
        key: Any = beam.DoFn.KeyParam,
    ) -> Iterator[Any]:
        shard = ShardRuntime(self._services, (journal, journal_2), meta, idle, pending, stream, self._number(key))
        shard.memory.pending_due_ms = None
        return shard.handle_due()

    @on_timer(STREAM)
    def on_stream(
        self,
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        journal_2: Any = beam.DoFn.StateParam(JOURNAL_2),
        meta: Any = beam.DoFn.StateParam(META),
        idle: Any = beam.DoFn.TimerParam(IDLE),
        pending: Any = beam.DoFn.TimerParam(PENDING),
        stream: Any = beam.DoFn.TimerParam(STREAM),
        due: Timestamp = beam.DoFn.TimestampParam,
        key: Any = beam.DoFn.KeyParam,
    ) -> Iterator[Any]:
        shard = ShardRuntime(self._services, (journal, journal_2), meta, idle, pending, stream, self._number(key))
        shard.memory.stream_due_ms = None
        return shard.handle_due(stream_ms=due.micros // 1000)
