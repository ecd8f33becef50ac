"""``event-trigger savepoint``: takes a savepoint of a running job, and prints only its path."""

from __future__ import annotations

import time
from typing import Annotated, Final

from cyclopts import Parameter

from pipeline.cli.parameters import Cluster, Number
from pipeline.console import out, say
from pipeline.errors import OptionError
from pipeline.job.jobs import running_job
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest

_MAX_TIMEOUT_S: Final = 86_400.0
_ENDED_S: Final = 60.0


def savepoint(
    *,
    cluster: Cluster = Cluster(),
    stop: bool = False,
    directory: Annotated[str | None, Parameter(metavar="URL")] = None,
    timeout_seconds: Number = 600.0,
) -> None:
    """Take a savepoint: all state of a job at one moment, to start it or its next release from.

    Prints the path, on standard output and alone there; what it does meanwhile is told on standard error. With --stop
    the job ends with it, so that nothing is handled twice: `event-trigger resume` goes on from there.

    0: taken; 1: no such job, Flink does not answer or could not take it; 2: an option cannot be used.

    Args:
        stop: end the job with it.
        directory: where to; default: the cluster's state.savepoints.dir.
        timeout_seconds: how long to wait for it.
    """
    if not 1 <= timeout_seconds <= _MAX_TIMEOUT_S:
        raise OptionError(f"--timeout_seconds is {timeout_seconds:g}, allowed: 1 to {_MAX_TIMEOUT_S:g}")
    with cluster.client() as rest:
        _take_savepoint(rest, cluster.job, stop, directory, timeout_seconds)


def _take_savepoint(
    rest: FlinkRest, name_or_id: str | None, stop: bool, directory: str | None, timeout_s: float
) -> None:
    job = running_job(rest, name_or_id)
    job_id, name = str(job["jid"]), str(job["name"])
    if directory is None and "state.savepoints.dir" not in rest.configuration():
        raise OptionError("--directory is missing, and the cluster has no state.savepoints.dir: say where it is to be")
    say(f"taking a savepoint of {name!r} ({job_id}){', then stopping it' if stop else ''}", job_id=job_id)
    started = time.monotonic()
    request = rest.stop if stop else rest.savepoint
    try:
        path = request(job_id, directory, deadline_s=timeout_s)
    except LocalStackError as error:
        raise LocalStackError(f"no savepoint of {name!r}, which is {rest.job(job_id)['state']}: {error}") from error
    out(path)
    if stop:
        rest.wait_for_state(job_id, {"FINISHED"}, _ENDED_S)
    ended = "; the job has ended" if stop else ""
    say(f"taken in {time.monotonic() - started:.1f} s{ended}", job_id=job_id)
