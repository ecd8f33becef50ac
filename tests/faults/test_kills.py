"""F1, F2, F3, F6, F25: processes are killed or hang, and what comes out is as if nothing had happened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from runners.flink import configuration
from tests.faults.experiment import CHECKPOINT_S, RECOVERY_GOAL_S, RECOVERY_LIMIT_S, Experiment, Result, experiment
from tests.faults.stack import Stack, parent_of, within

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(1800)]

Keep = Callable[[Result], Result]


def kill_task_manager(run: Experiment) -> None:
    """SIGKILL one of the TaskManagers, any; another is started at once, as a supervisor would."""
    since, struck_s = run.running_since(), run.strike()
    run.stack.flink.kill_task_manager(run.chance.randrange(2))
    run.stack.flink.start_task_manager()
    run.recover(struck_s, lambda: run.runs_again(since))
    run.stack.check_no_orphans()


def kill_leader(run: Experiment) -> None:
    """SIGKILL the JobManager that leads; the other takes the job over, and is joined by a new one."""
    before = run.stack.flink.job_manager_pid
    started = run.rest.job(run.job_id)["start-time"]
    struck_s = run.strike()
    assert run.stack.flink.kill_job_manager() == before

    def taken_over() -> bool:
        job = run.rest.job(run.job_id)
        tasks = {vertex["status"] for vertex in job["vertices"]}
        return job["start-time"] > started and job["state"] == "RUNNING" and tasks == {"RUNNING"}

    run.recover(struck_s, taken_over)
    # The same job, taken from the store of the cluster; nobody submitted anything.
    assert [job["jid"] for job in run.rest.jobs() if job["state"] == "RUNNING"] == [run.job_id]
    assert run.rest.checkpoints(run.job_id)["latest"]["restored"] is not None
    run.stack.flink.restart_job_manager()
    within(lambda: len(run.rest.task_managers()) == 2, lambda: f"{run.rest.task_managers()}", 60)
    run.stack.check_no_orphans()


def kill_harness(run: Experiment) -> None:
    """SIGKILL one of the Python workers, any."""
    since, struck_s = run.running_since(), run.strike()
    os.kill(run.chance.choice(sorted(run.stack.workers())), signal.SIGKILL)
    run.recover(struck_s, lambda: run.runs_again(since))
    run.stack.check_no_orphans()


def wait_for_a_phase(run: Experiment) -> None:
    """Any moment between checkpoints; in half of the cases before there is another one since the last fault."""
    if run.chance.random() < 0.5:
        run.wait_for_checkpoints(1)
    run.pause(0, 6)


def check(result: Result) -> None:
    """The goals that all kills have in common; the experiment itself saw that nothing is lost or repeated."""
    assert len(result.recovery_s) == result.times
    assert median(result.recovery_s) <= RECOVERY_GOAL_S
    assert max(result.recovery_s) <= RECOVERY_LIMIT_S


def check_cancellation(result: Result) -> None:
    """However a task hangs, its TaskManager ends it; some seconds more are REST's, which shows jobs as they were."""
    bound_s = int(configuration.BASE["task.cancellation.timeout"]) / 1000
    assert result.notes["longest cancellation in s"] <= bound_s + 10


def test_f1_task_managers_are_killed(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F1", "SIGKILL of a TaskManager", 10, seed))
    with experiment(stack, tmp_path, result) as run:
        for _ in range(result.times):
            wait_for_a_phase(run)
            kill_task_manager(run)
    check(result)


def test_f2_leading_job_managers_are_killed(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F2", "SIGKILL of the leading JobManager", 3, seed))
    with experiment(stack, tmp_path, result) as run:
        for _ in range(result.times):
            run.wait_for_checkpoints(2)
            kill_leader(run)
    check(result)


def test_f3_harnesses_are_killed(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F3", "SIGKILL of an SDK harness", 10, seed))
    with experiment(stack, tmp_path, result) as run:
        for _ in range(result.times):
            wait_for_a_phase(run)
            kill_harness(run)
    check(result)


def test_f6_kills_between_send_and_checkpoint(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F6", "SIGKILL of a TaskManager between send and checkpoint", 20, seed))
    with experiment(stack, tmp_path, result, rate=50) as run:
        for _ in range(result.times):
            done = run.completed()
            # Right after a checkpoint, then a random number of webhooks later: they are in none.
            within(lambda done=done: run.completed() > done, lambda: "no checkpoint", 60)  # type: ignore[misc]
            target = len(run.receiver.seen) + run.chance.randint(5, 30)
            run.receiver.until(lambda target=target: len(run.receiver.seen) >= target, 60)  # type: ignore[misc]
            kill_task_manager(run)
    check(result)
    assert result.verdict.webhook_repeats > 0, "no kill struck between send and checkpoint"
    result.notes["events a second x interval x kills"] = round(run.load.rate * CHECKPOINT_S * result.times)
    assert result.verdict.webhook_repeats <= result.notes["events a second x interval x kills"]


def test_f25_a_worker_hangs_when_its_job_restarts(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    """The other TaskManager is killed. The survivor cannot end its task in order, so that its own end is bounded."""
    result = results(Result("F25", "a worker hangs (SIGSTOP), then SIGKILL of the other TaskManager", 2, seed))
    replaced = 0
    with experiment(stack, tmp_path, result) as run:
        for _ in range(result.times):
            wait_for_a_phase(run)
            survivor = run.chance.randrange(2)
            pid = run.stack.flink.task_manager_pids[survivor]
            hangs = [worker for worker in run.stack.workers() if parent_of(worker) == pid]
            assert hangs, run.stack.workers()
            for worker in hangs:
                os.kill(worker, signal.SIGSTOP)
            run.pause(1, 3)  # bundles are open and hang
            since, struck_s = run.running_since(), run.strike()
            run.stack.flink.kill_task_manager(1 - survivor)
            run.stack.flink.start_task_manager()

            def recovered(since: int = since) -> bool:
                nonlocal replaced
                replaced += run.stack.flink.replace_dead_task_managers()
                return run.runs_again(since)

            run.recover(struck_s, recovered)
            run.stack.check_no_orphans()
    result.notes["TaskManagers that ended themselves"] = replaced
    check(result)
    check_cancellation(result)
