"""``python -m pipeline cancel``: ends a job at once, and prints what is left to go on from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from pipeline.cli.command_parser import RaisingParser
from pipeline.cli.flink_options import add_job_options, reaching, told
from pipeline.console import say
from pipeline.errors import OptionError
from pipeline.job.saved_state import newest_state, running_job, wait_for_news
from runners.flink.rest import FlinkRest

PROGRAM: Final = "python -m pipeline cancel"
_DESCRIPTION: Final = """\
Ends a job without taking a savepoint: what it has done since its newest checkpoint is done again by whoever goes on
from there (`python -m pipeline resume`), webhooks with the same ids. In order: `python -m pipeline savepoint --stop`.
Prints the path of that checkpoint, on standard output and alone there. Without --yes it only says what it would do.
0: cancelled; 1: no such job, or Flink does not answer; 2: an option cannot be used, or --yes is missing."""
_CANCELLED_S: Final = 180.0


def main(argv: Sequence[str]) -> int:
    """Cancel a job; the exit code."""
    return told(_cancel, argv)


def _cancel(argv: Sequence[str]) -> int:
    parser = RaisingParser(PROGRAM, "--flink_master=HOST:PORT [--job=NAME_OR_ID] --yes", _DESCRIPTION)
    add_job_options(parser)
    parser.add_argument("--yes", action="store_true", help="do it")
    arguments = parser.parse_args(argv)
    with reaching(arguments) as rest:
        return _end(rest, arguments)


def _end(rest: FlinkRest, arguments: argparse.Namespace) -> int:
    job = running_job(rest, arguments.job)
    job_id, who = str(job["jid"]), f"{job['name']!r} ({job['jid']})"
    kept = not rest.checkpoint_config(job_id)["externalization"]["delete_on_cancellation"]
    state = newest_state(rest, job)
    left = f"its newest state is the {state}" if state is not None and kept else "it has no state that would be left"
    if not kept:
        left = "its checkpoints would be deleted with it (RETAIN_ON_CANCELLATION is not set)"
    if not arguments.yes:
        raise OptionError(f"--yes is missing: it would cancel {who}; {left}")
    rest.cancel(job_id)
    rest.wait_for_state(job_id, {"CANCELED"}, _CANCELLED_S)
    wait_for_news(rest)  # a checkpoint may have been completed meanwhile
    state = newest_state(rest, job) if kept else None
    if state is None:
        say(f"cancelled {who}; there is no state to go on from", job_id=job_id)
        return 0
    say(f"cancelled {who}; go on from here with `python -m pipeline resume`", job_id=job_id)
    sys.stdout.write(f"{state.path}\n")
    return 0
