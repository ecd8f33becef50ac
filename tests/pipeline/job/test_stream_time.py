"""How far the stream's time is, and what holds it, from the metrics of Flink's source."""

from __future__ import annotations

import pytest

from pipeline.job.stream_time import stream_time

NOW_MS = 1_700_000_000_000


def test_a_job_without_these_metrics_has_no_time() -> None:
    assert stream_time({"events": [3]}, NOW_MS) == {
        "behind_seconds": None, "held_by": [], "records_skipped": 0, "position_resets": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("hold", "reason"),
    [
        (1, "not read to the end"),
        (2, "an open transaction"),
        (3, "no answer from the broker"),
        (4, "a partition that no reader has yet"),
    ],
)
def test_a_partition_that_holds_the_time_is_named(hold: int, reason: str) -> None:
    metrics = {
        "partition.3.time_behind_ms": [62_000], "partition.3.time_hold": [hold],
        "partition.12.time_behind_ms": [11_000], "partition.12.time_hold": [0],
    }  # fmt: skip
    status = stream_time(metrics, NOW_MS)
    assert status["behind_seconds"] == 62
    assert status["held_by"] == [{"partition": 3, "since_ms": NOW_MS - 62_000, "reason": reason}]


def test_what_is_at_work_or_has_old_records_holds_nothing() -> None:
    metrics = {
        "partition.0.time_behind_ms": [900], "partition.0.time_hold": [1],
        "partition.1.time_behind_ms": [86_400_000], "partition.1.time_hold": [0],
    }  # fmt: skip
    assert stream_time(metrics, NOW_MS)["held_by"] == []


def test_skipped_records_of_all_sources_add_up() -> None:
    status = stream_time({"records_skipped": [5, 2], "position_resets": [1, 1]}, NOW_MS)
    assert (status["records_skipped"], status["position_resets"]) == (7, 2)
