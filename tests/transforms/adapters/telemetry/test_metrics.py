from __future__ import annotations

import resource
import threading

from tests.builders import rule
from transforms.adapters.telemetry.metrics import (
    BOUNDS_MS,
    LATENCY,
    WorkerMetrics,
    bucket_names,
    resident_bytes,
)
from transforms.domain.shard.step_result import WEBHOOK


def test_a_histogram_is_counters_that_add_up_as_prometheus_has_them() -> None:
    metrics = WorkerMetrics()
    metrics.observe(LATENCY, [3, 5, 6, 70, 99_999])

    published = metrics.drain()
    expected = {f"latency_ms_le_{bound}": sum(value <= bound for value in (3, 5, 6, 70, 99_999)) for bound in BOUNDS_MS}
    assert published == expected | {"latency_ms_le_inf": 5, "latency_ms_sum": 100_083}
    assert list(published) == bucket_names(LATENCY)


def test_what_was_published_is_not_published_again() -> None:
    metrics = WorkerMetrics()
    metrics.observe(LATENCY, [1])
    metrics.count("user_api_calls", 2)
    metrics.drain()
    assert metrics.drain() == {}

    metrics.observe(WEBHOOK, [7])
    assert metrics.drain() == dict.fromkeys(bucket_names(WEBHOOK)[1:-1], 1) | {
        "webhook_ms_le_5": 0,
        "webhook_ms_sum": 7,
    }


def test_a_clock_that_is_behind_makes_no_negative_times() -> None:
    metrics = WorkerMetrics()
    metrics.observe(LATENCY, [-40])
    assert (metrics.drain() | {"seen": 0})["latency_ms_sum"] == 0


def test_one_caller_publishes_each_second() -> None:
    metrics = WorkerMetrics(every_ms=1000)
    assert [metrics.is_due(now_ms) for now_ms in (5000, 5000, 5999, 6000, 6001)] == [True, False, False, True, False]


def test_nothing_is_lost_between_threads() -> None:
    metrics, published = WorkerMetrics(), []

    def work() -> None:
        for _ in range(2000):
            metrics.observe(LATENCY, [1])
            metrics.count("user_api_calls")
        published.append(metrics.drain())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published.append(metrics.drain())
    assert sum(counts.get("user_api_calls", 0) for counts in published) == 8000
    assert sum(counts.get("latency_ms_le_inf", 0) for counts in published) == 8000


def test_memory_is_what_the_kernel_says() -> None:
    at_most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert at_most / 4 < resident_bytes() <= at_most * 1.1


def test_a_worker_is_as_busy_as_it_was_in_the_last_ten_seconds() -> None:
    metrics, second = WorkerMetrics(), 10**9
    # A worker that has run for an hour before it is asked first: the hour does not count.
    assert metrics.cpu_percent(3600 * second, 1800 * second) == 0
    assert metrics.cpu_percent(3609 * second, 1809 * second) == 0
    assert metrics.cpu_percent(3610 * second, 1806 * second) == 60
    # Until ten more seconds have passed it stays so; a pause without any question counts as a whole.
    assert metrics.cpu_percent(3611 * second, 1807 * second) == 60
    assert metrics.cpu_percent(3710 * second, 1811 * second) == 5
    assert metrics.cpu_percent(3720 * second, 1822 * second) == 110


def test_every_rule_of_a_set_saw_the_events() -> None:
    metrics, first, second = WorkerMetrics(), (rule("a"), rule("b")), (rule("b"),)
    for rules, events in ((first, 3), (second, 4), (first, 2)):
        metrics.count_evaluated(rules, events)
    assert metrics.drain() == {"rule.a.evaluated": 5, "rule.b.evaluated": 9}
    assert metrics.drain() == {}
