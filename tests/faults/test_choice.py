"""What ``make test`` runs of all this: five kills of four kinds in one job, and F16: two minutes without any."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest

from tests.faults.experiment import RECOVERY_LIMIT_S, USERS, Experiment, Result, experiment
from tests.faults.stack import Stack
from tests.faults.test_kills import kill_harness, kill_leader, kill_task_manager
from tests.faults.test_services import kill_broker

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

Keep = Callable[[Result], Result]


def test_five_kills_of_four_kinds(stack: Stack, tmp_path: Path, seed: int) -> None:
    kills = [kill_task_manager, kill_task_manager, kill_harness, kill_leader, kill_broker]
    result = Result("choice", "one after the other", len(kills), seed)
    with experiment(stack, tmp_path, result, events=8_000) as run:
        run.chance.shuffle(kills)
        for kill in kills:
            print(kill.__name__)
            run.wait_for_checkpoints(1)
            run.pause(0, 3)
            kill(run)
    assert max(result.recovery_s) <= RECOVERY_LIMIT_S


def test_f16_soak(stack: Stack, tmp_path: Path, seed: int, results: Keep, request: pytest.FixtureRequest) -> None:
    """Memory and checkpoints: the last quarter of the time against the second."""
    minutes = request.config.option.soak_minutes
    users = USERS[:100]
    result = results(Result("F16", f"{minutes:g} minutes without a fault", 1, seed))
    # Histories are full after a few seconds, from then on the state is as large as it gets.
    options = ("--compact_bytes=20000",)
    resident, sizes = [], []
    with experiment(stack, tmp_path, result, *options, rate=150, users=users, history_size=10) as run:
        ends_s = time.monotonic() + minutes * 60
        while time.monotonic() < ends_s:
            time.sleep(2)
            resident.append(sum(_resident_mb(pid) for pid in stack.workers()))
            sizes.append(_checkpoint_kb(run))
    quarter = len(resident) // 4
    for name, values, most in (("workers' memory, MB", resident, 0.05), ("checkpoint, KB", sizes, 0.10)):
        before, after = mean(values[quarter : 2 * quarter]), mean(values[-quarter:])
        result.notes[name] = f"{before:.0f}, then {after:.0f}"
        assert after <= before * (1 + most), f"{name}: {values}"
    assert run.restarted_at() == 0


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _checkpoint_kb(run: Experiment) -> float:
    return float(run.rest.checkpoints(run.job_id)["latest"]["completed"]["state_size"]) / 1024
