"""Metrics of a worker that belong to no shard, without Beam: counters, gauges, and histograms as counters.

Beam's distributions do not reach Flink's reporters (apache/beam#19500), so a histogram here is counters, as Prometheus
has them: ``latency_ms_le_50`` counts the values up to 50, ``latency_ms_le_inf`` all, ``latency_ms_sum`` adds them up.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

from transforms.domain.rules.model import Rule

# Upper bounds, ms. The goal for latency is a median of 30 and a 99th percentile of 80; retries and deadlines take
# seconds.
BOUNDS_MS: Final = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
PUBLISH_EVERY_MS: Final = 1000
# A share of CPU is that of so long or longer: a second alone says little.
CPU_SHARE_NS: Final = 10 * 10**9

LATENCY: Final = "latency_ms"
USER_API_CALL: Final = "user_api_call_ms"
USER_API_BREAKER: Final = "user_api_breaker_open"

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def bucket_names(histogram: str) -> list[str]:
    """The counters of a histogram: one for each bound, ``inf`` for all values, and their sum."""
    return [f"{histogram}_le_{bound}" for bound in (*BOUNDS_MS, "inf")] + [f"{histogram}_sum"]


class WorkerMetrics:
    """Counts, gauges and times of a worker, kept until a step publishes them. Thread-safe.

    The first step that asks ``every_ms`` after the last time publishes; what comes later waits for the next time.
    """

    def __init__(self, every_ms: int = PUBLISH_EVERY_MS) -> None:
        self._every_ms = every_ms
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        # By histogram: the number of values in each bucket alone, and last the sum of the values.
        self._buckets: dict[str, list[int]] = {}
        # By identity of the rules, as many steps come before the next publication: the rules, and their events.
        self._evaluated: dict[int, tuple[Sequence[Rule], list[int]]] = {}
        self._gauges: dict[str, int] = {}
        self._published_ms = 0
        self._cpu_percent = 0
        self._cpu_since_ns: tuple[int, int] | None = None  # of the monotonic clock, and the CPU time then

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] += number

    def count_evaluated(self, rules: Sequence[Rule], events: int) -> None:
        """Add events to the rules' ``evaluated`` counters; ``rules`` is the same object each time."""
        with self._lock:
            entry = self._evaluated.get(id(rules))
            if entry is None:
                self._evaluated[id(rules)] = (rules, [events])
            else:
                entry[1][0] += events

    def set(self, gauge: str, value: int) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[gauge] = value

    def observe(self, histogram: str, values_ms: Iterable[int]) -> None:
        """Add times to a histogram; a negative one, of a clock that is behind, counts as 0."""
        with self._lock:
            buckets = self._buckets.get(histogram)
            if buckets is None:
                buckets = self._buckets[histogram] = [0] * (len(BOUNDS_MS) + 2)
            for value_ms in values_ms:
                buckets[bisect_left(BOUNDS_MS, value_ms)] += 1
                if value_ms > 0:
                    buckets[-1] += value_ms

    def is_due(self, now_ms: int) -> bool:
        """Whether the caller shall publish; True for only one caller each ``every_ms``."""
        with self._lock:
            if now_ms - self._published_ms < self._every_ms:
                return False
            self._published_ms = now_ms
            return True

    def cpu_percent(self, now_ns: int | None = None, cpu_ns: int | None = None) -> int:
        """How busy this process was lately, in percent of a core. 0 until it can be said.

        Args:
            now_ns: of the monotonic clock; default: now.
            cpu_ns: CPU time of the process until then; default: until now.
        """
        now_ns = time.monotonic_ns() if now_ns is None else now_ns
        cpu_ns = time.process_time_ns() if cpu_ns is None else cpu_ns
        with self._lock:
            if self._cpu_since_ns is None:
                self._cpu_since_ns = now_ns, cpu_ns
            since_ns, before_ns = self._cpu_since_ns
            if now_ns - since_ns >= CPU_SHARE_NS:
                self._cpu_percent = round(100 * (cpu_ns - before_ns) / (now_ns - since_ns))
                self._cpu_since_ns = now_ns, cpu_ns
            return self._cpu_percent

    def gauges(self) -> dict[str, int]:
        """The gauges' values by name."""
        with self._lock:
            return dict(self._gauges)

    def drain(self) -> dict[str, int]:
        """The increase of every counter since the last call, histograms included."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            for rules, (events,) in self._evaluated.values():
                counts.update({f"rule.{rule.name}.evaluated": events for rule in rules})
            self._evaluated.clear()
            for histogram, buckets in self._buckets.items():
                *numbers, sum_ms = buckets
                if any(numbers):
                    values = [*accumulate(numbers), sum_ms]
                    counts.update(dict(zip(bucket_names(histogram), values, strict=True)))
                    buckets[:] = [0] * len(buckets)
            return dict(counts)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
