"""Publishes the stage's metrics through Beam: counts at the end of each bundle, everything else once a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from apache_beam.metrics import Metrics

from transforms.adapters.telemetry import metrics
from transforms.adapters.telemetry.metric_names import METRICS_NAMESPACE, known_counters
from transforms.domain.rules.live_sets import LiveSet
from transforms.domain.rules.model import Rule
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step_result import StepResult
from transforms.runtime.shard_memory import ShardMemory

SHARD_SIZES: Final = ("users", "parked_users", "users_with_webhooks", "journal_bytes")


class MetricsPublisher:
    """The Beam metrics of one DoFn instance. Not thread-safe.

    Attributes:
        counts: what the current bundle adds to counters; a dict costs a tenth of a Beam counter.
    """

    def __init__(self, worker: metrics.WorkerMetrics, rules: Sequence[str], destinations: Sequence[str]) -> None:
        self.counts: dict[str, int] = {}
        self._worker = worker
        self._destinations = destinations
        self._counters: dict[str, Any] = {}
        self._gauges: dict[str, Any] = {}
        # Every counter is there from the first publication on, with 0 if nothing was counted.
        self._unpublished = known_counters(rules, destinations)

    def start_bundle(self) -> None:
        """Forget the counts of the bundle before: if it failed, its retry counts anew."""
        self.counts.clear()

    def finish_bundle(self) -> None:
        """Hand the bundle's counts to Beam."""
        for name, value in self.counts.items():
            counter = self._counters.get(name)
            if counter is None:
                counter = self._counters[name] = Metrics.counter(METRICS_NAMESPACE, name)
            counter.inc(value)

    def count(self, name: str, value: int) -> None:
        """Add to a counter of this bundle."""
        self.counts[name] = self.counts.get(name, 0) + value

    def show(self, name: str, value: int) -> None:
        """Set a gauge."""
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Metrics.gauge(METRICS_NAMESPACE, name)
        gauge.set(value)

    def count_step(self, result: StepResult) -> None:
        """Add a step's counts."""
        counts = self.counts
        for name, value in result.counts.items():
            if value:
                counts[name] = counts.get(name, 0) + value
        for (rule, event), value in result.rule_counts.items():
            self.count(f"rule.{rule}.{event}", value)

    def observe_step(self, result: StepResult, rules: Sequence[Rule] | None, now_ms: int) -> None:
        """Add a step's times to the worker's histograms, and its events to the counters of the rules that saw them."""
        worker = self._worker
        for histogram, took_ms in result.durations_ms:
            worker.observe(histogram, (took_ms,))
        if result.produced_ms:
            worker.observe(metrics.LATENCY, [now_ms - produced_ms for produced_ms in result.produced_ms])
        if rules is not None:
            worker.count_evaluated(rules, result.evaluated_events)

    def publish_worker(self, failing: dict[str, bool]) -> None:
        """Publish what belongs to no shard; ``failing`` says by destination whether its breaker is open."""
        for name in self._unpublished:
            self.count(name, 0)
        self._unpublished = []
        for name, value in self._worker.drain().items():
            self.count(name, value)
        for name, value in self._worker.gauges().items():
            self.show(name, value)
        for name, is_failing in failing.items():
            self.show(f"destination.{name}.breaker_open", int(is_failing))
        self.show("worker_rss_bytes", metrics.resident_bytes())
        self.show("worker_cpu_ms", time.process_time_ns() // 1_000_000)
        self.show("worker_cpu_percent", self._worker.cpu_percent())

    def publish_rules(self, live: LiveSet, state: ShardState) -> None:
        """Publish which rules and destinations are in use, as one shard knows it: all of them know the same."""
        self.show("rule_set", live.number)
        self.show("rules_live", len(live.filters.rules))
        for name in self._destinations:
            self.show(f"destination.{name}.disabled", int(name in state.disabled))

    def publish_shard(self, state: ShardState, journal_bytes: int, memory: ShardMemory, now_ms: int) -> None:
        """Publish the sizes of a shard that has a number, at most once a second."""
        is_late = now_ms - memory.published_ms < metrics.PUBLISH_EVERY_MS
        memory.has_unpublished_size = is_late and not state.is_empty
        if memory.has_unpublished_size:
            return
        memory.published_ms = now_ms
        sizes = (len(state.users), len(state.parked), len(state.deliveries), journal_bytes)
        for name, value, shown in zip(SHARD_SIZES, sizes, memory.published_sizes or (None,) * 4, strict=True):
            if value != shown:
                self.show(f"shard.{memory.number}.{name}", value)
        memory.published_sizes = sizes
