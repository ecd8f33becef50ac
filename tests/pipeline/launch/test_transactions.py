"""Exactly-once actions against time: the job restarts before the broker gives up what waits for a checkpoint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.launch.flink import job_settings
from pipeline.launch.options import EXACTLY_ONCE, Settings
from pipeline.launch.transactions import checkpoint_bounds, checkpoint_settings, least_transaction_timeout_ms

RESTART_MS = 60_000


@st.composite
def settings(draw: st.DrawFn) -> tuple[int, int]:
    """An interval and a transaction timeout that options let through."""
    interval_ms = draw(st.integers(100, 3_600_000))
    return interval_ms, least_transaction_timeout_ms(interval_ms) + draw(st.integers(0, 7_200_000))


def oldest_transaction_ms(interval_ms: int, checkpoint_ms: int, failures: int) -> int:
    """How old the oldest transaction is when the job gives up, played out checkpoint by checkpoint."""
    now_ms = began_ms = 0  # with the barrier of the last checkpoint that is complete
    for _ in range(failures + 1):
        now_ms += interval_ms  # the next is begun as late as it can be
        now_ms += checkpoint_ms  # and takes as long as it may, and fails
    return now_ms - began_ms


@given(settings())
def test_no_transaction_outlives_its_timeout_before_the_job_has_restarted(bounds: tuple[int, int]) -> None:
    interval_ms, transaction_ms = bounds
    checkpoint_ms, failures = checkpoint_bounds(interval_ms, transaction_ms)
    assert oldest_transaction_ms(interval_ms, checkpoint_ms, failures) + RESTART_MS <= transaction_ms


@given(settings())
def test_a_checkpoint_has_twenty_seconds_at_least_and_ten_minutes_at_most(bounds: tuple[int, int]) -> None:
    checkpoint_ms, failures = checkpoint_bounds(*bounds)
    assert 20_000 <= checkpoint_ms <= 600_000
    assert failures >= 0


@pytest.mark.parametrize("interval_ms", [5_000, 10_000, 60_000])
def test_with_the_default_timeout_two_minutes_without_s3_do_not_restart_the_job(interval_ms: int) -> None:
    _, failures = checkpoint_bounds(interval_ms, Settings().transaction_timeout_ms)
    assert failures * interval_ms >= 120_000


def test_the_shortest_timeout_that_is_allowed_is_the_shortest_that_is_enough() -> None:
    checkpoint_ms, failures = checkpoint_bounds(60_000, least_transaction_timeout_ms(60_000))
    assert (checkpoint_ms, failures) == (20_000, 0)


def test_only_exactly_once_is_bound_by_it() -> None:
    assert job_settings(Settings()) == {}
    assert job_settings(Settings(delivery_guarantee=EXACTLY_ONCE)) == checkpoint_settings(60_000, 900_000)
    assert checkpoint_settings(60_000, 900_000) == {
        "execution.checkpointing.timeout": "135000 ms",
        "execution.checkpointing.tolerable-failed-checkpoints": "3",
    }
