"""F18: a hundred kills of which the workers of the surviving TaskManager live on, in pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.experiment import Result, earlier_pieces, experiment
from tests.faults.stack import Stack
from tests.faults.test_kills import check, check_cancellation, kill_harness, kill_task_manager, wait_for_a_phase

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(7200)]

KILLS = 100
_KEEP_MS = 60_000


def test_f18_kills_with_kept_workers(
    stack: Stack,
    tmp_path: Path,
    seed: int,
    results: Callable[[Result], Result],
    request: pytest.FixtureRequest,
) -> None:
    """A run makes ``--kills`` of them; the next run goes on where the last one stopped, until there are a hundred."""
    earlier = earlier_pieces(request.config.option.faults_results, "F18", KILLS)
    kills = min(request.config.option.kills, KILLS - (earlier["times"] if earlier else 0))
    result = results(Result("F18", "SIGKILL of a TaskManager or a worker, workers are kept for a minute", kills, seed))
    kept = f"--worker_keep_ms={_KEEP_MS}"
    with experiment(stack, tmp_path, result, kept, events=1_000, gone_s=_KEEP_MS / 1000 + 30) as run:
        for _ in range(kills):
            wait_for_a_phase(run)
            run.chance.choice([kill_task_manager, kill_harness])(run)
    check(result)
    check_cancellation(result)
    if earlier:
        result.add_to(earlier)
