"""The last hour of a job: what its bins hold, and which changes it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline.job.snapshot import JobSnapshot
from pipeline.ui.hour import BIN_MS, BINS, Bin, Recorder, values
from tests.pipeline.ui.pages import snapshot

T0 = 1_700_000_010_000  # 20 s before the end of a bin


def at(seconds: float, restarts: int = 0, state: str = "RUNNING", jid: str = "0" * 32, **metrics: int) -> JobSnapshot:
    found = snapshot(seconds, **metrics)
    return replace(found, restarts=restarts, job={**found.job, "state": state, "jid": jid})


def recorded(*snapshots: JobSnapshot) -> Recorder:
    recorder = Recorder()
    for taken in snapshots:
        recorder.add(T0 + round(taken.at_s * 1000), taken)
    return recorder


def seen(recorder: Recorder, seconds: float = 3000) -> list[Bin]:
    return [found for found in recorder.hour(T0 + round(seconds * 1000)).bins if found is not None]


def texts(recorder: Recorder, seconds: float = 3000) -> list[str]:
    return [change.text for change in recorder.hour(T0 + round(seconds * 1000)).changes]


def rates(recorder: Recorder, counter: str = "events_handled") -> list[float | None]:
    return [found.rate(counter) for found in seen(recorder)]


def handled(seconds: float, count: int, **others: Any) -> JobSnapshot:
    return at(seconds, events_handled=count, **others)


def test_a_steady_stream_is_a_steady_line_whenever_it_was_looked_at() -> None:
    looks = [0, 5, 11, 15, 21, 26, 33, 35, 48, 52, 61, 75]
    assert rates(recorded(*(handled(second, 7 + 40 * second) for second in looks))) == pytest.approx([40, 40, 40])


def test_where_nothing_was_seen_is_a_gap_and_the_rate_after_it_is_the_mean() -> None:
    recorder = recorded(handled(0, 0), handled(5, 200), handled(305, 12_200))
    hour = recorder.hour(T0 + 305_000)
    rate = values(hour, lambda found: found.rate("events_handled"))
    assert len(rate) == BINS
    assert [value for value in rate if value is not None] == [40, 40]
    assert rate[-11:] == [40, *[None] * 9, 40]
    assert (hour.to_ms - hour.from_ms, hour.position(hour.from_ms - 1), hour.position(hour.to_ms)) == (3_600_000, 0, 1)


def test_an_hour_is_all_that_is_kept() -> None:
    recorder = recorded(*(handled(30 * number, 30 * number) for number in range(3 * BINS)))
    assert len(seen(recorder, 30 * (3 * BINS - 1))) == BINS
    assert seen(recorder, 30 * (4 * BINS)) == []
    assert values(recorder.hour(T0 + 30_000 * 4 * BINS), lambda found: 1.0) == [None] * BINS


def test_counters_begin_again_after_a_restart_even_if_old_values_are_seen_first() -> None:
    counts = [(0, 1000, 0), (5, 1200, 0), (10, 1200, 1), (15, 12, 1), (20, 212, 1)]
    recorder = recorded(*(handled(second, count, restarts=restarts) for second, count, restarts in counts))
    assert sum(found.counts["events_handled"] for found in seen(recorder)) == 200 + 12 + 200
    assert texts(recorder) == ["restarted (restart 1)"]


def test_a_subtask_that_is_silent_for_a_moment_makes_no_peak() -> None:
    recorder = recorded(*(handled(5 * number, count) for number, count in enumerate((4000, 2000, 4010, 0, 4020))))
    assert sum(found.counts["events_handled"] for found in seen(recorder)) == 20


def test_a_restart_that_was_not_seen_stops_a_chart_for_a_minute_only() -> None:
    recorder = recorded(handled(0, 4000), *(handled(5.0 * number, 10 * number) for number in range(1, 21)))
    assert [found.counts["events_handled"] for found in seen(recorder)][-1] > 0
    assert sum(found.counts["events_handled"] for found in seen(recorder)) < 100


def test_a_new_jobmanager_counts_restarts_anew_and_so_do_the_counters() -> None:
    recorder = recorded(handled(0, 4000, restarts=3), handled(5, 4100, restarts=3), handled(10, 50, restarts=0))
    assert sum(found.counts["events_handled"] for found in seen(recorder)) == 150
    assert texts(recorder) == []


def test_without_metrics_nothing_is_counted_and_nothing_is_zero() -> None:
    recorder = recorded(handled(0, 100), at(5), at(10), handled(15, 160))
    (first,) = seen(recorder)
    assert (first.counts["events_handled"], first.seconds, first.rate("events_handled")) == (60, 15, 4)
    assert Bin(0).rate("events_handled") is None
    assert Bin(0).latency_ms(0.5) is None


def test_latency_is_that_of_the_bin_alone() -> None:
    slow = {"latency_ms_le_100": 50, "latency_ms_le_250": 100, "latency_ms_le_inf": 100}
    fast = {"latency_ms_le_25": 100, "latency_ms_le_100": 150, "latency_ms_le_250": 200, "latency_ms_le_inf": 200}
    buckets = ("25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "inf")

    def of(second: float, counts: Mapping[str, int]) -> JobSnapshot:
        filled, highest = {}, 0
        for bound in buckets:
            highest = max(highest, counts.get(f"latency_ms_le_{bound}", 0))
            filled[f"latency_ms_le_{bound}"] = highest
        return at(second, **filled)

    recorder = recorded(of(0, {}), of(30, slow), of(60, fast))
    medians = [found.latency_ms(0.5) for found in seen(recorder)]
    assert medians[-1] is not None
    assert medians[-2] is not None
    assert medians[-1] <= 25 < medians[-2]


def test_lag_is_the_highest_of_a_bin_and_unknown_while_the_job_does_not_run() -> None:
    def lagging(second: float, lag: int, state: str = "RUNNING") -> JobSnapshot:
        return replace(handled(second, 1, state=state), lag=lag)

    recorder = recorded(lagging(0, 3), lagging(5, 90), lagging(10, 7), lagging(30, 0, "RESTARTING"))
    assert [found.lag for found in seen(recorder)] == [90, None]


def test_what_changed_is_named_once() -> None:
    def job(second: float, *switches: int, number: int = 3, **others: Any) -> JobSnapshot:
        names = ("user_api_breaker_open", "destination__a__b__breaker_open", "destination__crm__disabled")
        return handled(second, 0, rule_set=number, **dict(zip(names, switches, strict=True)), **others)

    recorder = recorded(
        job(0, 0, 1, 0), job(5, 0, 1, 0), job(10, 1, 0, 1), job(15, 1, 0, 1, number=4), job(20, 0, 0, 0, number=4),
        job(25, 0, 0, 0, number=4, state="FAILED"), job(30, 0, 1, 1, number=4, jid="abcdef123456"),
    )  # fmt: skip
    assert texts(recorder) == [
        "user API is failing: its breaker opened",
        "destination a.b answers again: its breaker closed",
        "destination crm switched off",
        "rule set 4 is live",
        "user API answers again: its breaker closed",
        "destination crm switched on",
        "job is FAILED",
        "job abcdef12 took over from 00000000",
    ]
    assert [change.is_bad for change in recorder.hour(T0 + 60_000).changes][:3] == [True, False, True]
    assert texts(recorder, 3600 + 31) == []


def test_another_job_s_counts_are_no_increase() -> None:
    recorder = recorded(
        handled(0, 5000), handled(5, 5010), handled(10, 9000, jid="other"), handled(15, 9005, jid="other")
    )
    assert sum(found.counts["events_handled"] for found in seen(recorder)) == 15


def test_failed_checkpoints_are_changes_and_completed_ones_are_drawn() -> None:
    def checkpoints(second: float, failed: int, acknowledged: int, took_ms: int) -> JobSnapshot:
        completed = {"end_to_end_duration": took_ms, "state_size": 1, "latest_ack_timestamp": acknowledged}
        counts = {"completed": 1, "failed": failed}
        return replace(handled(second, 0), checkpoints={"counts": counts, "latest": {"completed": completed}})

    recorder = recorded(
        checkpoints(0, 0, 1, 900), checkpoints(5, 0, 1, 900), checkpoints(10, 0, 2, 321), checkpoints(15, 2, 2, 321)
    )
    assert [found.checkpoint_ms for found in seen(recorder)] == [321]
    assert texts(recorder) == ["2 checkpoints failed"]


def test_silence_is_named_once_with_its_end() -> None:
    recorder = Recorder()
    recorder.miss(T0, "not there yet")
    recorder.add(T0, handled(0, 0))
    recorder.miss(T0 + 5000, "Flink: connection refused")
    recorder.miss(T0 + 10_000, "Flink: connection refused")
    recorder.add(T0 + 15_000, handled(15, 0))
    assert texts(recorder) == ["nothing seen: Flink: connection refused", "Flink answers again"]


def test_a_clock_that_was_set_back_does_not_hurt() -> None:
    recorder = Recorder()
    recorder.add(T0 + 10 * BIN_MS, handled(0, 0))
    recorder.add(T0, handled(5, 50))
    assert [found.rate("events_handled") for found in seen(recorder)] == [10]
