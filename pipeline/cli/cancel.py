"""``event-trigger cancel``: ends a job at once, and prints the path of the state that it leaves."""

from __future__ import annotations

from typing import Final

from pipeline.cli.parameters import Cluster
from pipeline.console import out, say
from pipeline.errors import OptionError
from pipeline.job.jobs import running_job
from pipeline.job.saved_state import newest_state, wait_for_checkpoint_refresh
from runners.flink.rest import FlinkRest

_CANCELLED_S: Final = 180.0


def cancel(*, cluster: Cluster = Cluster(), yes: bool = False) -> None:
    """End a job without taking a savepoint.

    What it has done since its newest checkpoint is done again by whoever goes on from there (`event-trigger resume`),
    webhooks with the same ids. In order: `event-trigger savepoint --stop`. Prints the path of that checkpoint, on
    standard output and alone there. Without --yes it only says what it would do.

    0: cancelled; 1: no such job, or Flink does not answer; 2: an option cannot be used, or --yes is missing.

    Args:
        yes: do it.
    """
    with cluster.client() as rest:
        _cancel_job(rest, cluster.job, yes)


def _cancel_job(rest: FlinkRest, name_or_id: str | None, yes: bool) -> None:
    job = running_job(rest, name_or_id)
    job_id, described = str(job["jid"]), f"{job['name']!r} ({job['jid']})"
    is_kept = not rest.checkpoint_config(job_id)["externalization"]["delete_on_cancellation"]
    state = newest_state(rest, job)
    consequence = f"its newest state is the {state}" if state is not None else "it has no state that would be left"
    if not is_kept:
        consequence = "its checkpoints would be deleted with it (RETAIN_ON_CANCELLATION is not set)"
    if not yes:
        raise OptionError(f"--yes is missing: it would cancel {described}; {consequence}")
    rest.cancel(job_id)
    rest.wait_for_state(job_id, {"CANCELED"}, _CANCELLED_S)
    wait_for_checkpoint_refresh(rest)  # the job may have completed another checkpoint before it ended
    state = newest_state(rest, job) if is_kept else None
    if state is None:
        say(f"cancelled {described}; there is no state to go on from", job_id=job_id)
        return
    say(f"cancelled {described}; go on from here with `event-trigger resume`", job_id=job_id)
    out(state.path)
