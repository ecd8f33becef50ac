"""When a launch says that its job runs: ``pipeline.launch.flink.wait_until_running``."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pipeline.errors import SubmissionError
from pipeline.launch import flink
from pipeline.launch.flink import wait_until_running
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest

LOST = "org.apache.flink.util.FlinkExpectedException: TaskExecutor 10.0.0.2 has no more allocated slots"
WRONG = (
    "java.lang.RuntimeException: a task failed\n\tat a.b.C\nCaused by: java.lang.Exception: user_shards is 32, not 16"
)
RUNS = ("RUNNING", "RUNNING", 0)


class Job:
    """A job as Flink's REST API shows it: at each look the next state, tasks' state and number of failures."""

    def __init__(self, cause: str, *looks: tuple[str, str, int], checkpoints: str = "+", refuses: bool = False) -> None:
        self._cause, self._looks = cause, iter(looks)
        self._checkpoints = checkpoints
        self._refuses = refuses
        self._failures = 0
        self.requested = 0

    def job(self, _: str) -> dict[str, Any]:
        state, tasks, self._failures = next(self._looks)
        return {"state": state, "vertices": [{"status": tasks}, {"status": "RUNNING"}]}

    def failures(self, _: str) -> list[dict[str, Any]]:
        return [{"stacktrace": self._cause, "timestamp": 0}] * self._failures

    def checkpoints(self, _: str) -> dict[str, Any]:
        """Of each look a character: ``+`` there is a completed one, a digit: how many have failed. The last stays."""
        seen, self._checkpoints = self._checkpoints[0], self._checkpoints[1:] or self._checkpoints
        failed = int(seen) if seen.isdigit() else 0
        return {
            "counts": {"failed": 17},
            "history": [{"status": "FAILED"}] * failed,
            "latest": {
                "completed": {"id": 1} if seen == "+" else None,
                "failed": {"failure_message": "Access Denied"} if failed else None,
            },
        }

    def trigger_checkpoint(self, _: str) -> None:
        self.requested += 1
        if self._refuses:
            raise LocalStackError("not now")


def wait(job: Job, path: str | None = "s3://b/savepoint-1") -> None:
    wait_until_running(cast(FlinkRest, job), "j1", path)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flink, "_STARTING_EVERY_S", 0)


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
    with pytest.raises(SubmissionError, match=r"job j1 failed to start: it is CANCELED$"):
        wait(Job("", ("CANCELED", "CANCELED", 0)), None)


@pytest.mark.parametrize("refuses", [False, True])
def test_the_first_checkpoint_is_requested_once_and_waited_for(refuses: bool) -> None:
    job = Job("", ("RUNNING", "DEPLOYING", 0), *[RUNS] * 4, checkpoints="0000+", refuses=refuses)
    wait(job, None)
    assert job.requested == 1


def test_a_restarted_job_is_not_called_running_before_a_checkpoint() -> None:
    job = Job(LOST, RUNS, ("RESTARTING", "FAILED", 1), ("RESTARTING", "FAILED", 2), checkpoints="0")
    with pytest.raises(SubmissionError, match="no more allocated slots; it tries again"):
        wait(job, None)


def test_checkpoints_that_fail_are_an_error_of_the_launch() -> None:
    with pytest.raises(SubmissionError) as caught:
        wait(Job("", *[RUNS] * 3, checkpoints="012"), None)
    assert str(caught.value) == (
        "job j1 runs, but its checkpoints fail: Access Denied; it tries again until it is cancelled"
    )


def test_what_it_waits_for_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(flink, "_WAITING_EVERY_S", -1)
    wait(Job("", ("CREATED", "SCHEDULED", 0), RUNS, RUNS, checkpoints="00+"), None)
    assert capsys.readouterr().err.splitlines() == [
        "job j1 is starting",
        "job j1 is CREATED, waiting for its steps: 1 of 2 run",
        "job j1 is RUNNING, waiting for its first checkpoint",
    ]
