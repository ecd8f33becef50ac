"""How a launch from a savepoint waits for the job: ``pipeline.launch.flink.wait_until_restored``."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pipeline.errors import SubmissionError
from pipeline.launch.flink import wait_until_restored
from runners.flink.rest import FlinkRest

LOST = "org.apache.flink.util.FlinkExpectedException: TaskExecutor 10.0.0.2 has no more allocated slots"
WRONG = (
    "java.lang.RuntimeException: a task failed\n\tat a.b.C\nCaused by: java.lang.Exception: user_shards is 32, not 16"
)


class Job:
    """A job as Flink's REST API shows it: at each look the next state, and how often it has failed by then."""

    def __init__(self, cause: str, *looks: tuple[str, str, int]) -> None:
        self._cause, self._looks = cause, iter(looks)
        self._failures = 0

    def job(self, _: str) -> dict[str, Any]:
        state, tasks, self._failures = next(self._looks)
        return {"state": state, "vertices": [{"status": tasks}, {"status": "RUNNING"}]}

    def exceptions(self, _: str) -> dict[str, Any]:
        entries = [{"stacktrace": self._cause}] * self._failures
        return {"root-exception": self._cause if self._failures else None, "exceptionHistory": {"entries": entries}}


def wait(job: Job) -> None:
    wait_until_restored(cast(FlinkRest, job), "j1", "s3://b/savepoint-1")


def test_a_slot_that_goes_away_while_it_starts_is_waited_for() -> None:
    wait(Job(LOST, ("RUNNING", "DEPLOYING", 0), ("RESTARTING", "CANCELED", 1), ("RUNNING", "RUNNING", 1)))


def test_what_fails_twice_does_not_fit() -> None:
    with pytest.raises(SubmissionError) as caught:
        wait(Job(WRONG, ("RUNNING", "INITIALIZING", 0), ("RESTARTING", "FAILED", 1), ("RESTARTING", "FAILED", 2)))
    assert str(caught.value) == (
        "job j1 failed to start from s3://b/savepoint-1: java.lang.Exception: user_shards is 32, not 16; it tries "
        "again until it is cancelled"
    )


def test_a_job_that_failed_for_good_is_not_waited_for() -> None:
    with pytest.raises(SubmissionError, match=r"user_shards is 32, not 16$"):
        wait(Job(WRONG, ("RUNNING", "INITIALIZING", 0), ("FAILED", "FAILED", 1)))
