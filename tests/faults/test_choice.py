"""``make test`` runs three kills of three kinds in one job, ``make test-faults`` also F16, a soak without any fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest

from tests.faults.experiment import RECOVERY_LIMIT_S, USERS, Result, experiment
from tests.faults.stack import Stack
from tests.faults.test_kills import kill_harness, kill_leader, kill_task_manager
from tests.faults.test_services import kill_broker

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

Keep = Callable[[Result], Result]
_EVENTS = 120_000


def test_three_kills_of_three_kinds(stack: Stack, tmp_path: Path, seed: int) -> None:
    result = Result("choice", "one after the other", 3, seed)
    with experiment(stack, tmp_path, result, events=6_000) as run:
        kills = [kill_task_manager, run.chance.choice([kill_harness, kill_leader]), kill_broker]
        run.chance.shuffle(kills)
        for kill in kills:
            print(kill.__name__)
            run.wait_for_checkpoints(1)
            run.pause(0, 3)
            kill(run)
    assert max(result.recovery_s) <= RECOVERY_LIMIT_S


@pytest.mark.every_fault
def test_f16_soak(stack: Stack, tmp_path: Path, seed: int, results: Keep, request: pytest.FixtureRequest) -> None:
    """Memory and state in the last quarter of the time must be those of the second quarter."""
    minutes = request.config.option.soak_minutes
    users = USERS[:100]
    result = results(Result("F16", f"{minutes:g} minutes without a fault", 1, seed))
    # Histories are full after half a minute, from then on the state is as large as it gets. With shorter ones an event
    # that is too late for them to keep would be acted on again when it is repeated.
    options = ("--compact_bytes=20000",)
    resident: list[float] = []
    sizes: list[float] = []
    # All outputs are in memory when they are compared.
    rate = min(200.0, _EVENTS / (minutes * 60))
    with experiment(stack, tmp_path, result, *options, rate=rate, users=users, history_size=60) as run:
        quarter_s = minutes * 60 / 4
        for quarter in range(4):
            ends_s = time.monotonic() + quarter_s
            if quarter % 2 == 0:
                time.sleep(quarter_s)
                continue
            measured, kilobytes = [], []
            while time.monotonic() < ends_s:
                measured.append(sum(_resident_mb(pid) for pid in stack.workers()))
                # Of savepoints, since checkpoints hold what RocksDB has not yet compacted as well; of several, since a
                # shard's journal grows by a third before it is written anew, and all shards began together.
                if time.monotonic() > ends_s - quarter_s + quarter_s / 4 * len(kilobytes):
                    run.rest.savepoint(run.job_id)
                    kilobytes.append(run.rest.checkpoints(run.job_id)["latest"]["savepoint"]["state_size"] / 1024)
                time.sleep(1)
            resident.append(mean(measured))
            sizes.append(mean(kilobytes))
        result.notes["workers' memory"] = "{:.0f} MB, then {:.0f} MB".format(*resident)
        result.notes["state"] = "{:.0f} KB, then {:.0f} KB".format(*sizes)
    assert resident[1] <= resident[0] * 1.05
    assert abs(sizes[1] / sizes[0] - 1) <= 0.10
    assert run.restarts() == 0


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
