"""``python -m pipeline savepoint``: takes a savepoint of a running job, and prints only its path."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Final

from pipeline.cli.command_line import RaisingParser, add_job_options, cluster_client, steer, with_options
from pipeline.console import say
from pipeline.errors import OptionError
from pipeline.job.jobs import running_job
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest

_DESCRIPTION: Final = """\
Takes a savepoint: all state of a job at one moment, to start it or its next release from. Prints the path, on standard
output and alone there; what it does meanwhile is told on standard error. With --stop the job ends with it, so that
nothing is handled twice: `python -m pipeline resume` goes on from there.
0: taken; 1: no such job, Flink does not answer or could not take it; 2: an option cannot be used."""
_MAX_TIMEOUT_S: Final = 86_400.0
_ENDED_S: Final = 60.0


def main(argv: Sequence[str]) -> int:
    """Take a savepoint; the exit code."""
    return steer(_savepoint, argv)


def _savepoint(argv: Sequence[str]) -> int:
    parser = RaisingParser("savepoint", "--flink_master=HOST:PORT [--job=NAME_OR_ID] [--stop]", _DESCRIPTION)
    add_job_options(parser)
    parser.add_argument("--stop", action="store_true", help="end the job with it")
    parser.add_argument("--directory", metavar="URL", help="where to (default: the cluster's state.savepoints.dir)")
    parser.add_argument(
        "--timeout_seconds", type=float, default=600.0, metavar="NUMBER", help="how long to wait for it (default: 600)"
    )
    arguments = with_options(parser.parse_args(argv))
    if not 1 <= arguments.timeout_seconds <= _MAX_TIMEOUT_S:
        raise OptionError(f"--timeout_seconds is {arguments.timeout_seconds:g}, allowed: 1 to {_MAX_TIMEOUT_S:g}")
    with cluster_client(arguments) as rest:
        return _take_savepoint(rest, arguments)


def _take_savepoint(rest: FlinkRest, arguments: argparse.Namespace) -> int:
    job = running_job(rest, arguments.job)
    job_id, name = str(job["jid"]), str(job["name"])
    if arguments.directory is None and "state.savepoints.dir" not in rest.configuration():
        raise OptionError("--directory is missing, and the cluster has no state.savepoints.dir: say where it is to be")
    say(f"taking a savepoint of {name!r} ({job_id}){', then stopping it' if arguments.stop else ''}", job_id=job_id)
    started = time.monotonic()
    request = rest.stop if arguments.stop else rest.savepoint
    try:
        path = request(job_id, arguments.directory, deadline_s=arguments.timeout_seconds)
    except LocalStackError as error:
        raise LocalStackError(f"no savepoint of {name!r}, which is {rest.job(job_id)['state']}: {error}") from error
    sys.stdout.write(f"{path}\n")
    sys.stdout.flush()
    if arguments.stop:
        rest.wait_for_state(job_id, {"FINISHED"}, _ENDED_S)
    ended = "; the job has ended" if arguments.stop else ""
    say(f"taken in {time.monotonic() - started:.1f} s{ended}", job_id=job_id)
    return 0
