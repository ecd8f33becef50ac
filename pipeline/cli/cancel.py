"""``python -m pipeline cancel``: ends a job at once, and prints the path of the state that it leaves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from pipeline.cli.command_line import RaisingParser, add_job_options, cluster_client, steer, with_options
from pipeline.console import say
from pipeline.errors import OptionError
from pipeline.job.jobs import running_job
from pipeline.job.saved_state import newest_state, wait_for_checkpoint_refresh
from runners.flink.rest import FlinkRest

_DESCRIPTION: Final = """\
Ends a job without taking a savepoint: what it has done since its newest checkpoint is done again by whoever goes on
from there (`python -m pipeline resume`), webhooks with the same ids. In order: `python -m pipeline savepoint --stop`.
Prints the path of that checkpoint, on standard output and alone there. Without --yes it only says what it would do.
0: cancelled; 1: no such job, or Flink does not answer; 2: an option cannot be used, or --yes is missing."""
_CANCELLED_S: Final = 180.0


def main(argv: Sequence[str]) -> int:
    """Cancel a job; the exit code."""
    return steer(_cancel, argv)


def _cancel(argv: Sequence[str]) -> int:
    parser = RaisingParser("cancel", "--flink_master=HOST:PORT [--job=NAME_OR_ID] --yes", _DESCRIPTION)
    add_job_options(parser)
    parser.add_argument("--yes", action="store_true", help="do it")
    arguments = with_options(parser.parse_args(argv))
    with cluster_client(arguments) as rest:
        return _cancel_job(rest, arguments)


def _cancel_job(rest: FlinkRest, arguments: argparse.Namespace) -> int:
    job = running_job(rest, arguments.job)
    job_id, described = str(job["jid"]), f"{job['name']!r} ({job['jid']})"
    is_kept = not rest.checkpoint_config(job_id)["externalization"]["delete_on_cancellation"]
    state = newest_state(rest, job)
    consequence = f"its newest state is the {state}" if state is not None else "it has no state that would be left"
    if not is_kept:
        consequence = "its checkpoints would be deleted with it (RETAIN_ON_CANCELLATION is not set)"
    if not arguments.yes:
        raise OptionError(f"--yes is missing: it would cancel {described}; {consequence}")
    rest.cancel(job_id)
    rest.wait_for_state(job_id, {"CANCELED"}, _CANCELLED_S)
    wait_for_checkpoint_refresh(rest)  # the job may have completed another checkpoint before it ended
    state = newest_state(rest, job) if is_kept else None
    if state is None:
        say(f"cancelled {described}; there is no state to go on from", job_id=job_id)
        return 0
    say(f"cancelled {described}; go on from here with `python -m pipeline resume`", job_id=job_id)
    sys.stdout.write(f"{state.path}\n")
    return 0
