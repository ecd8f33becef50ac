"""What metrics cost a worker: ``python -m tests.benchmarks.metrics``.

The real stage in this process over Beam's state cache and metric cells, as the SDK harness runs it: bundles over the
shards of a slot, the timers that are due, and the metrics that each bundle reports to the runner. Every shard of events
is handled twice, with metrics and without (nothing is measured, counted or published), in turns that change places; CPU
time of the thread is compared, so that what else the machine does is left out.

What the state machine itself counts cannot be taken out of it: it is written down once, and done again by itself.
Left out is Flink's side, which adds up the reports and shows them to Prometheus.
"""

from __future__ import annotations

import gc
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from apache_beam.metrics.execution import MetricsContainer
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import sdk_worker, statesampler
from apache_beam.utils.counters import CounterFactory

from runners.flink import overrides
from tests.benchmarks.shards import START_MS, event
from tests.builders import sample_rules
from tests.transforms.harness import Harness
from transforms.domain.events.micro_batch import (
    EVENTS,
    VERSION,
    MicroBatch,
    key_of,
    shard_of,
)
from transforms.domain.events.record import Record
from transforms.domain.shard import step as state_machine
from transforms.domain.shard.step_result import StepResult
from transforms.handle_events import HandleSettings, _HandleFn
from transforms.runtime.metrics_publisher import MetricsPublisher
from transforms.runtime.shard_runtime import ShardRuntime

_USER_SHARDS: Final = 128
_SLOT: Final = range(64)
_USERS: Final = 1000
_BUNDLE_MS: Final = 20
_ROUNDS: Final = 20
_BUNDLES: Final = 50  # a second of the stage's time: what is published once a second is published once

Bundle = list[tuple[int, MicroBatch]]


class _Fn(_HandleFn):
    """A bundle here is of many shards, each of which the harness takes for a bundle of its own."""

    def start_bundle(self) -> None:
        pass

    def finish_bundle(self) -> None:
        pass


@contextmanager
def without_metrics() -> Iterator[None]:
    """Nothing is measured or published; logging stays."""
    owners = {"_measure": ShardRuntime, "_sample_rule_errors": ShardRuntime, "count": MetricsPublisher}
    kept = {name: getattr(owner, name) for name, owner in owners.items()}

    def only_log(shard: ShardRuntime, result: StepResult) -> None:
        shard._services.event_log.step(result, shard.memory.number, shard._services.clock())

    def forget_counts(shard: ShardRuntime, result: StepResult) -> None:
        kept["_sample_rule_errors"](shard, result)
        result.counts.clear()
        result.rule_counts.clear()

    def leave(*_: Any) -> None:
        pass

    for name, instead in {"_measure": only_log, "_sample_rule_errors": forget_counts, "count": leave}.items():
        setattr(owners[name], name, instead)
    try:
        yield
    finally:
        for name, owner in owners.items():
            setattr(owner, name, kept[name])


class Slot:
    """The stage in one slot: a DoFn instance, its shards, its metrics."""

    def __init__(self) -> None:
        settings = HandleSettings(sample_rules("kafka"), user_shards=_USER_SHARDS)
        self._shards = {number: Harness(settings) for number in _SLOT}
        for number, shard in self._shards.items():
            shard.key = _keys()[number]
        self._now_ms = START_MS
        self._fn = _Fn(settings, lambda: self._now_ms)
        self._fn.setup()
        self._sampler = statesampler.StateSampler("bench", CounterFactory())
        self._metrics = MetricsContainer("HandleEvents")
        self._state = self._sampler.scoped_state("HandleEvents", "process", metrics_container=self._metrics)

    def run(self, bundle: Bundle) -> float:
        """Handle a bundle, ``_BUNDLE_MS`` after the one before; CPU seconds."""
        statesampler.set_current_tracker(self._sampler)
        started = time.thread_time()
        self._bundle(bundle)
        took_s = time.thread_time() - started
        for shard in self._shards.values():
            shard.outputs.clear()
        return took_s

    def _bundle(self, bundle: Bundle) -> None:
        self._now_ms += _BUNDLE_MS
        with self._state:
            _HandleFn.start_bundle(self._fn)
            for number, batch in bundle:
                shard = self._shards[number]
                shard.now_ms = self._now_ms
                shard.bundle(self._fn, batch)
            for shard in self._shards.values():
                for timer, due_ms in shard.due.items():
                    if due_ms is not None and due_ms <= self._now_ms and timer != "stream":
                        shard.bundle(self._fn, timer=timer)
            _HandleFn.finish_bundle(self._fn)
        infos = list(self._metrics.to_runner_api_monitoring_infos("HandleEvents").values())
        data = {sdk_worker.SHORT_ID_CACHE.get_short_id(info): info.payload for info in infos}
        beam_fn_api_pb2.ProcessBundleResponse(monitoring_infos=infos, monitoring_data=data).SerializeToString()
        self._metrics.metrics.clear()  # as overrides.reset_processor


def _keys() -> dict[int, bytes]:
    keys: dict[int, bytes] = {}
    for number in itertools.count():
        user = b"user_%d" % number
        keys.setdefault(shard_of(user, _USER_SHARDS), key_of(user, _USER_SHARDS))
        if len(keys) == _USER_SHARDS:
            return keys
    raise AssertionError


class Load:
    """Events of users of the slot's shards, at so many a second, in micro-batches of whoever came within a bundle."""

    def __init__(self, events_a_second: int) -> None:
        self._random = random.Random(7)
        self.events = events_a_second * _BUNDLE_MS // 1000
        names = (b"user_%05d" % number for number in itertools.count())
        self._users = list(itertools.islice((name for name in names if shard_of(name, _USER_SHARDS) in _SLOT), _USERS))
        self._offsets = itertools.count()

    def everybody(self) -> Bundle:
        """An event of each user."""
        return self._bundle_of(self._users)

    def bundle(self) -> Bundle:
        """What comes within ``_BUNDLE_MS``."""
        return self._bundle_of(self._random.choices(self._users, k=self.events))

    def _bundle_of(self, users: Iterable[bytes]) -> Bundle:
        records: dict[int, list[Record]] = {}
        for user in users:
            value = event(user, START_MS, triggerable=self._random.random() < 0.1)
            record = Record(0, next(self._offsets), START_MS, user, value)
            records.setdefault(shard_of(user, _USER_SHARDS), []).append(record)
        return [(number, MicroBatch(VERSION, EVENTS, "events", batch)) for number, batch in records.items()]


class _Recorded(Counter[Any]):
    """A counter that writes down what is added to it."""

    def __init__(self, log: list[tuple[Any, int]]) -> None:
        super().__init__()
        self._log = log

    def __setitem__(self, name: Any, value: int) -> None:
        self._log.append((name, value - self.get(name, 0)))
        super().__setitem__(name, value)


def counting_s(slot: Slot, bundles: list[Bundle]) -> float:
    """CPU seconds of what the state machine counts for these bundles, by itself."""
    logs: list[tuple[list[tuple[Any, int]], list[tuple[Any, int]]]] = []

    def recorded_step() -> StepResult:
        logs.append(([], []))
        return StepResult(counts=_Recorded(logs[-1][0]), rule_counts=_Recorded(logs[-1][1]))

    state_machine.StepResult = recorded_step  # type: ignore[assignment, attr-defined]
    try:
        for bundle in bundles:
            slot.run(bundle)
    finally:
        state_machine.StepResult = StepResult  # type: ignore[attr-defined]
    assert logs
    started = time.thread_time()
    for of_step in logs:
        for log in of_step:
            counts: Counter[Any] = Counter()
            for name, number in log:
                counts[name] += number
    return time.thread_time() - started


@dataclass(frozen=True)
class Cost:
    """CPU µs an event: without metrics, with them, and what the state machine's own counting takes in both."""

    bare_us: float
    full_us: float
    counting_us: float

    @property
    def share(self) -> float:
        """Metrics' part of what an event costs."""
        return (self.full_us - self.bare_us + self.counting_us) / self.full_us


def measured(events_a_second: int) -> Cost:
    """The best of the rounds; both take turns at every bundle, so that they meet the same machine."""
    load = Load(events_a_second)
    slots = {Slot(): without_metrics, Slot(): nullcontext}
    turns = itertools.cycle([list(slots), list(slots)[::-1]])
    rounds = []
    for number in range(_ROUNDS + 1):
        bundles = [load.bundle() for _ in range(_BUNDLES)]
        took = dict.fromkeys(slots, 0.0)
        gc.collect()
        gc.disable()
        for bundle in bundles if number else [load.everybody(), *bundles]:
            for slot in next(turns):
                with slots[slot]():
                    took[slot] += slot.run(bundle)
        gc.enable()
        rounds.append(list(took.values()))
    full = list(slots)[1]
    counting = [counting_s(full, [load.bundle() for _ in range(_BUNDLES)]) for _ in range(3)]
    per_event = 1e6 / (_BUNDLES * load.events)
    bare_s, full_s = (min(column) for column in zip(*rounds[1:], strict=True))
    return Cost(bare_s * per_event, full_s * per_event, min(counting) * per_event)


def main() -> None:
    """Print a line a load."""
    overrides.apply()
    for events_a_second in (500, 2500):
        cost = measured(events_a_second)
        sys.stdout.write(
            f"{events_a_second:>6,} events/s a slot: {cost.full_us:6.1f} µs an event, {cost.bare_us:6.1f} without "
            f"metrics, of both {cost.counting_us:4.2f} counting in the state machine: metrics are {cost.share:.1%}\n"
        )


if __name__ == "__main__":
    main()
