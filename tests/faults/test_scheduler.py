"""F31 to F34: Flink's adaptive scheduler goes on with the slots that there are, and takes new ones in under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.flink import configuration
from tests.faults.experiment import RECOVERY_LIMIT_S, Experiment, Result, experiment
from tests.faults.stack import Stack, parent_of, running_stack
from tests.faults.test_kills import Keep, check, kill_leader, wait_for_a_phase
from tests.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(1800)]

# Of tests.faults.stack: two TaskManagers with two slots each; jobs are submitted with --parallelism=4.
_ALL, _HALF = 4, 2


@pytest.fixture(scope="module")
def stack(kafka: KafkaBroker, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """As of the other faults, with the adaptive scheduler."""
    results: Path | None = pytestconfig.option.faults_results
    dumps = results.parent / "faults-dumps" if results else tmp_path_factory.mktemp("dumps")
    key = "jobmanager.scheduler"  # in which a local cluster differs from all others
    with running_stack(kafka, dumps, {key: configuration.BASE[key]}) as running:
        yield running


def parallelism(run: Experiment) -> set[int]:
    """How many subtasks the steps have."""
    return {int(vertex["parallelism"]) for vertex in run.rest.job(run.job_id)["vertices"]}


def recover_with(run: Experiment, struck_s: float, since: int, slots: int) -> float:
    """Wait until all steps run again with that many subtasks; returns the seconds since the strike."""
    run.recover(struck_s, lambda: run.runs_again(since) and parallelism(run) == {slots})
    return run.result.recovery_s[-1]


def grow(run: Experiment) -> float:
    """Start a TaskManager; returns the seconds until the job runs on all slots again."""
    since, struck_s = run.running_since(), run.strike()
    run.stack.flink.start_task_manager()
    grown_s = recover_with(run, struck_s, since, _ALL)
    run.result.recovery_s.pop()  # the job ran all the time but for a restart
    run.stack.check_no_orphans()
    return grown_s


def test_f31_a_task_manager_is_lost_for_good(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    """Nobody replaces it. Later another comes, which the job takes in while events arrive."""
    what = "SIGKILL of a TaskManager that nobody replaces; a checkpoint later another starts"
    result = results(Result("F31", what, 3, seed))
    grown_s = []
    with experiment(stack, tmp_path, result) as run:
        for _ in range(result.times):
            wait_for_a_phase(run)
            since, struck_s = run.running_since(), run.strike()
            run.stack.flink.kill_task_manager(run.chance.randrange(2))
            recover_with(run, struck_s, since, _HALF)
            run.wait_for_checkpoints(1)
            grown_s.append(grow(run))
    result.notes["on all slots again after at most s"] = round(max(grown_s), 1)
    check(result)


def test_f32_a_task_manager_hangs(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    """SIGSTOP of a TaskManager and its workers, for good: its connections stay open, so that only heartbeats tell."""
    result = results(Result("F32", "SIGSTOP of a TaskManager and its workers, for good", 2, seed))
    with experiment(stack, tmp_path, result) as run:
        for _ in range(result.times):
            wait_for_a_phase(run)
            index = run.chance.randrange(2)
            pid = run.stack.flink.task_manager_pids[index]
            hangs = [pid, *(worker for worker in run.stack.workers() if parent_of(worker) == pid)]
            since, struck_s = run.running_since(), run.strike()
            for each in hangs:
                os.kill(each, signal.SIGSTOP)
            try:
                recover_with(run, struck_s, since, _HALF)
            finally:
                run.stack.flink.kill_task_manager(index)
                for each in hangs[1:]:
                    os.kill(each, signal.SIGKILL)
            grow(run)
    result.notes["heartbeat timeout in s"] = int(configuration.LOCAL["heartbeat.timeout"]) // 1000
    check(result)


def test_f33_slots_come_one_after_the_other(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    """Both TaskManagers are killed at once. The job waits, however long, and starts with the first that comes."""
    result = results(Result("F33", "SIGKILL of both TaskManagers; two others start, one after the other", 1, seed))
    with experiment(stack, tmp_path, result) as run:
        wait_for_a_phase(run)
        since = run.running_since()
        run.strike()
        for _ in range(2):
            run.stack.flink.kill_task_manager(0)
        run.pause(30, 31)  # longer than Flink's heartbeats: it knows that there is none
        run.stack.flink.start_task_manager()
        recover_with(run, time.monotonic(), since, _HALF)
        result.notes["on all slots again after at most s"] = round(grow(run), 1)
    check(result)
    assert max(result.recovery_s) <= RECOVERY_LIMIT_S


def test_f34_leading_job_managers_are_killed(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F34", "F2 with the adaptive scheduler", 2, seed))
    with experiment(stack, tmp_path, result) as run:
        for _ in range(result.times):
            run.wait_for_checkpoints(2)
            kill_leader(run)
    check(result)
