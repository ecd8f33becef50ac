"""What a worker measures beside its steps' counts: times as histograms, and what is so right now. Knows no Beam.

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

# Upper bounds, ms. The goal is a median of 30 and 80 at the 99th percentile; retries and deadlines take seconds.
BOUNDS_MS: Final = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
TELL_EVERY_MS: Final = 1000

LATENCY: Final = "latency_ms"
USER_API_CALL: Final = "user_api_call_ms"
USER_API_BREAKER: Final = "user_api_breaker_open"

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def bucket_names(histogram: str) -> list[str]:
    """The counters of a histogram: one a bound, ``inf`` for all, and the sum."""
    return [f"{histogram}_le_{bound}" for bound in (*BOUNDS_MS, "inf")] + [f"{histogram}_sum"]


class WorkerMetrics:
    """Counts and times of a worker that are told once in a while, however many steps they come from. Thread-safe.

    They are told by whichever step is the first after ``every_ms``; what came after that waits for the next one.
    """

    def __init__(self, every_ms: int = TELL_EVERY_MS) -> None:
        self._every_ms = every_ms
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        # By histogram: how many values are in each bucket alone, and last their sum.
        self._buckets: dict[str, list[int]] = {}
        # By identity, for it is many steps to a telling: the rules, and how many events they saw.
        self._evaluated: dict[int, tuple[Sequence[Rule], list[int]]] = {}
        self._gauges: dict[str, int] = {}
        self._told_ms = 0

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] += number

    def evaluated(self, rules: Sequence[Rule], events: int) -> None:
        """So many events were shown to these rules, the same object each time."""
        with self._lock:
            before = self._evaluated.get(id(rules))
            if before is None:
                self._evaluated[id(rules)] = (rules, [events])
            else:
                before[1][0] += events

    def set(self, gauge: str, value: int) -> None:
        """What is so from now on."""
        with self._lock:
            self._gauges[gauge] = value

    def observe(self, histogram: str, values_ms: Iterable[int]) -> None:
        """Take in times; one below 0, of a clock that is behind, counts as 0."""
        with self._lock:
            buckets = self._buckets.get(histogram)
            if buckets is None:
                buckets = self._buckets[histogram] = [0] * (len(BOUNDS_MS) + 2)
            for value_ms in values_ms:
                buckets[bisect_left(BOUNDS_MS, value_ms)] += 1
                if value_ms > 0:
                    buckets[-1] += value_ms

    def is_due(self, now_ms: int) -> bool:
        """Whether it is time to tell; True for one caller alone."""
        with self._lock:
            if now_ms - self._told_ms < self._every_ms:
                return False
            self._told_ms = now_ms
            return True

    def gauges(self) -> dict[str, int]:
        """What was last set."""
        with self._lock:
            return dict(self._gauges)

    def take(self) -> dict[str, int]:
        """Every counter's increase since the last time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            for rules, (events,) in self._evaluated.values():
                counts.update({f"rule.{rule.name}.evaluated": events for rule in rules})
            self._evaluated.clear()
            for histogram, buckets in self._buckets.items():
                *numbers, sum_ms = buckets
                if any(numbers):
                    told = [*accumulate(numbers), sum_ms]
                    counts.update(dict(zip(bucket_names(histogram), told, strict=True)))
                    buckets[:] = [0] * len(buckets)
            return dict(counts)


def cpu_ms() -> int:
    """CPU time that this process has taken, all of its threads."""
    return time.process_time_ns() // 1_000_000


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
