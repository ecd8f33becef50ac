"""Which jobs a Flink cluster runs or remembers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import OptionError, PipelineError
from runners.flink.rest import TERMINAL_STATES, FlinkRest


class NoJobError(PipelineError, RuntimeError):
    """The cluster has no such job; the message names those that it has."""


def newest_job(rest: FlinkRest, name: str) -> str:
    """The id of the newest job with a name; a job that has not ended comes before all others.

    Raises:
        NoJobError: there is none.
        LocalStackError: Flink does not answer.
    """
    jobs = rest.jobs()
    candidates = [job for job in jobs if job["name"] == name]
    if not candidates:
        others = ", ".join(sorted({repr(job["name"]) for job in jobs})) or "none at all"
        raise NoJobError(f"no job {name!r} at {rest.url}, there are {others}: see --job_name")
    newest = max(candidates, key=lambda job: (job["state"] not in TERMINAL_STATES, job["start-time"]))
    return str(newest["jid"])


def running_job(rest: FlinkRest, id_or_name: str | None) -> Mapping[str, Any]:
    """Flink's overview of the job that runs. If several run, ``id_or_name`` says which one is meant.

    Raises:
        NoJobError: no such job runs, or more than one does.
        LocalStackError: Flink does not answer.
    """
    jobs = rest.jobs()
    running = [job for job in jobs if job["state"] not in TERMINAL_STATES]
    candidates = running if id_or_name is None else _matching(running, id_or_name)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise NoJobError(f"{len(candidates)} jobs run at {rest.url}, {_named(candidates)}: name one with --job")
    if id_or_name is None:
        raise NoJobError(f"no job runs at {rest.url}")
    ended = _matching(jobs, id_or_name)
    if ended:
        newest = max(ended, key=_start_time)
        raise NoJobError(f"job {id_or_name!r} does not run at {rest.url}, it is {newest['state']}")
    raise NoJobError(f"no job {id_or_name!r} at {rest.url}, {_named(running) or 'none at all'} runs: see --job")


def ended_jobs(rest: FlinkRest, id_or_name: str) -> list[Mapping[str, Any]]:
    """The ended jobs with an id or name that the cluster remembers, the newest first.

    Raises:
        OptionError: such a job still runs. Two jobs of a name would do everything twice.
        LocalStackError: Flink does not answer.
    """
    jobs = _matching(rest.jobs(), id_or_name)
    for job in jobs:
        if job["state"] not in TERMINAL_STATES:
            raise OptionError(
                f"--job_name is {job['name']!r}, and job {job['jid']} of that name is {job['state']} at {rest.url}: "
                "two would handle every event twice and abort each other's transactions. Allowed: another name (with a "
                "--transactional_id_prefix and a --group_id of its own), or this one once that job is stopped with "
                "`event-trigger savepoint --stop`"
            )
    return sorted(jobs, key=_start_time, reverse=True)


def _matching(jobs: Iterable[Mapping[str, Any]], id_or_name: str) -> list[Mapping[str, Any]]:
    return [job for job in jobs if id_or_name in (job["jid"], job["name"])]


def _start_time(job: Mapping[str, Any]) -> int:
    return int(job["start-time"])


def _named(jobs: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{job['name']!r} ({job['jid']})" for job in jobs)
