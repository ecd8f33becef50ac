"""Rates of what Flink has renewed, and the age of what was seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.job.health import DEGRADED, DOWN, HEALTHY
from pipeline.job.jobs import NoJobError
from pipeline.job.looks import Looks
from pipeline.job.snapshot import JobSnapshot
from runners.flink.errors import FlinkSilentError
from tests.pipeline.job.snapshots import NOW_MS, healthy, of_job, steps


class Clock:
    """A clock that a test moves."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def looking(*seen: JobSnapshot | Exception, every_s: float = 2.0) -> tuple[Looks, Clock]:
    clock, coming = Clock(), iter(seen)

    def take() -> JobSnapshot:
        found = next(coming)
        if isinstance(found, Exception):
            raise found
        return found

    return Looks(take, ("flink:8081", "shop"), every_s, 60.0, clock), clock


def after(looks: Looks, clock: Clock, count: int, every_s: float = 2.0) -> dict[str, Any]:
    for _ in range(count):
        clock.now_s += every_s
        looks.take()
    assert looks.status is not None
    return dict(looks.status)


@given(st.lists(st.floats(0.3, 1.9), min_size=8, max_size=60), st.floats(0.5, 2.0))
def test_a_steady_rate_is_shown_steady_however_looks_and_refreshes_meet(pauses: list[float], refresh_s: float) -> None:
    """40 events a second; Flink renews its metrics when it is asked and they are older than ``refresh_s``."""
    shown = []

    def snapshots() -> Iterator[JobSnapshot]:
        at_s, renewed_s = 0.0, 0.0
        for pause_s in pauses:
            at_s += pause_s
            if at_s - renewed_s >= refresh_s:
                renewed_s = at_s
            yield replace(healthy(renewed_s, events_handled=int(40 * renewed_s)), at_s=at_s)

    looks, clock = looking(*snapshots())
    for pause_s in pauses:
        clock.now_s += pause_s
        looks.take()
        if looks.status is not None and looks.is_settled:
            shown.append(looks.status["events"]["handled_per_second"])
    assert all(36 <= rate <= 44 for rate in shown)


def test_equal_values_of_a_refresh_that_has_not_come_are_no_standstill() -> None:
    fresh = [healthy(second, events_handled=40 * second) for second in (0, 2, 2, 4)]
    looks, clock = looking(*fresh)
    assert after(looks, clock, 2)["events"]["handled_per_second"] == 40
    assert after(looks, clock, 1)["events"]["handled_per_second"] == 40
    assert after(looks, clock, 1)["events"]["handled_per_second"] == 40


def test_rates_after_a_restart_count_what_came_since() -> None:
    before = healthy(0, events_handled=5000)
    again = replace(healthy(4, events_handled=6000), restarts=1, metrics_at_ms=2_000)
    looks, clock = looking(before, again)
    assert after(looks, clock, 2)["events"]["handled_per_second"] == 3000


def test_a_lag_of_metrics_that_are_not_renewed_is_unknown() -> None:
    looks, clock = looking(*[healthy(0, lag=7)] * 4)
    assert after(looks, clock, 2)["events"]["lag"] == 7
    assert after(looks, clock, 2, every_s=3)["events"]["lag"] is None


def test_a_flink_that_does_not_answer_is_seen_as_gone_after_two_looks() -> None:
    looks, clock = looking(healthy(0), healthy(2), *[FlinkSilentError("http://flink:8081", "no answer in time")] * 3)
    after(looks, clock, 2)
    assert looks.verdict.state == HEALTHY
    assert after(looks, clock, 1)["events"]["lag"] is None
    trouble = "Flink at flink:8081 does not answer: no answer in time, not seen for 2 s"
    assert (looks.verdict.state, looks.trouble) == (HEALTHY, trouble)
    after(looks, clock, 2)
    assert looks.verdict.state == DOWN
    assert looks.verdict.cause == "Flink at flink:8081 does not answer, not seen for 6 s"
    assert looks.document()["seen_seconds_ago"] == 6.0
    clock.now_s += 60  # nobody looks any more, and the verdict ages all the same
    assert "not seen for 66 s" in looks.verdict.cause


def test_a_job_that_is_gone_is_gone_at_once() -> None:
    looks, clock = looking(healthy(0), NoJobError("no job 'shop' at flink:8081, there are none at all"))
    after(looks, clock, 2)
    assert (looks.verdict.state, looks.verdict.section) == (DOWN, "JobNotRunning")


def test_before_the_first_look_nothing_is_well() -> None:
    looks, _ = looking()
    assert (looks.verdict.state, looks.status) == (DOWN, None)
    assert looks.document() == {"verdict": looks.verdict.document(), "seen_seconds_ago": None}


def test_records_that_wait_are_a_standstill_after_ten_seconds() -> None:
    looks, clock = looking(*(healthy(2 * n, lag=0 if n < 2 else 5, events=100) for n in range(9)))
    after(looks, clock, 2)
    after(looks, clock, 4)
    assert (looks.verdict.state, looks.is_settled) == (HEALTHY, False)
    after(looks, clock, 2)
    assert looks.verdict.cause == "5 events wait, and none was taken for 12 s"
    assert looks.is_settled


def test_records_that_wait_while_others_are_taken_are_no_standstill() -> None:
    looks, clock = looking(*(healthy(2 * n, lag=5, events=100 + n) for n in range(9)))
    after(looks, clock, 9)
    assert looks.verdict.state == HEALTHY


def test_what_is_down_is_told_at_once_though_no_rate_is_known() -> None:
    silent = replace(healthy(0), task_managers=[{"slotsNumber": 2, "timeSinceLastHeartbeat": 0}])
    looks, clock = looking(healthy(0), silent)
    after(looks, clock, 1)
    assert not looks.is_settled
    after(looks, clock, 1)
    assert looks.is_settled


def test_the_lag_is_unknown_while_a_task_manager_is_silent() -> None:
    heard = replace(healthy(0, lag=2), task_managers=[{"slotsNumber": 2, "timeSinceLastHeartbeat": NOW_MS}])
    silent = replace(heard, task_managers=[{"slotsNumber": 2, "timeSinceLastHeartbeat": 0}])
    for snapshot, lag in ((heard, 2), (silent, None)):
        looks, clock = looking(snapshot)
        after(looks, clock, 1)
        assert looks.status is not None
        assert looks.status["events"]["lag"] == lag


@pytest.mark.parametrize("state", ["RESTARTING", "FAILED"])
def test_a_job_that_does_not_run_is_not_waited_for(state: str) -> None:
    looks, clock = looking(of_job(healthy(0), state=state))
    after(looks, clock, 1)
    assert looks.is_settled


def test_a_job_that_restarts_between_looks_is_degraded_until_its_steps_run() -> None:
    looks, clock = looking(healthy(0), steps(healthy(2), "RUNNING", "INITIALIZING"))
    after(looks, clock, 2)
    assert looks.verdict.state in (DOWN, DEGRADED)
