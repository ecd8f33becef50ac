"""Which jobs there are on a cluster, and what state they have left that another can start from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.errors import OptionError
from pipeline.job.status import NoJobError
from pipeline.timestamps import shown_time
from runners.flink.errors import NotFoundError
from runners.flink.rest import TERMINAL_STATES, FlinkRest

CHECKPOINT: Final = "checkpoint"
SAVEPOINT: Final = "savepoint"
_FLINK_DEFAULT_MS: Final = 3000


@dataclass(frozen=True, slots=True)
class SavedState:
    """A checkpoint or savepoint, its path as Flink wrote it, and when it was taken [ms since the epoch]."""

    kind: str
    path: str
    at_ms: int
    job_id: str

    def __str__(self) -> str:
        return f"{self.kind} of {shown_time(self.at_ms)} of job {self.job_id}: {self.path}"


def running_job(rest: FlinkRest, wanted: str | None) -> Mapping[str, Any]:
    """The job that runs, or that of several whose id or name is ``wanted``: Flink's overview of it.

    Raises:
        NoJobError: none does, or more than one.
        LocalStackError: Flink does not answer.
    """
    jobs = rest.jobs()
    running = [job for job in jobs if job["state"] not in TERMINAL_STATES]
    found = running if wanted is None else [job for job in running if wanted in (job["jid"], job["name"])]
    if len(found) == 1:
        return found[0]
    if found:
        raise NoJobError(f"{len(found)} jobs run at {rest.url}, {_named(found)}: name one with --job")
    if wanted is None:
        raise NoJobError(f"no job runs at {rest.url}")
    ended = [job for job in jobs if wanted in (job["jid"], job["name"])]
    if ended:
        newest = max(ended, key=lambda job: int(job["start-time"]))
        raise NoJobError(f"job {wanted!r} does not run at {rest.url}, it is {newest['state']}")
    raise NoJobError(f"no job {wanted!r} at {rest.url}, {_named(running) or 'none at all'} runs: see --job")


def ended_jobs(rest: FlinkRest, wanted: str) -> list[Mapping[str, Any]]:
    """The jobs of an id or name that the cluster remembers, the newest first.

    Raises:
        OptionError: one of them still runs: two would do everything twice.
        LocalStackError: Flink does not answer.
    """
    jobs = [job for job in rest.jobs() if wanted in (job["jid"], job["name"])]
    for job in jobs:
        if job["state"] not in TERMINAL_STATES:
            raise OptionError(
                f"--job_name is {job['name']!r}, and job {job['jid']} of that name is {job['state']} at {rest.url}: "
                "two would handle every event twice and abort each other's transactions. Allowed: another name (with a "
                "--transactional_id_prefix and a --group_id of its own), or this one once that job is stopped with "
                "`python -m pipeline savepoint --stop`"
            )
    return sorted(jobs, key=lambda job: int(job["start-time"]), reverse=True)


def newest_state(rest: FlinkRest, job: Mapping[str, Any]) -> SavedState | None:
    """The newest state that a job has left or, if it has got to none, what it began with itself.

    Flink removes the checkpoints of a job that was stopped with a savepoint, and of no other.

    Raises:
        LocalStackError: Flink does not answer.
    """
    try:
        latest = rest.checkpoints(job["jid"])["latest"]
    except NotFoundError:
        return None  # it has ended before it began
    found = []
    savepoint, checkpoint, restored = (latest.get(name) for name in ("savepoint", "completed", "restored"))
    for one, kind in ((savepoint, SAVEPOINT), (checkpoint, CHECKPOINT)):
        kept = kind == SAVEPOINT or job["state"] != "FINISHED"
        if one and kept and one.get("external_path") and not one.get("discarded"):
            kind = SAVEPOINT if one.get("is_savepoint") else kind
            found.append(SavedState(kind, one["external_path"], int(one["trigger_timestamp"]), job["jid"]))
    if not found and restored and restored.get("external_path"):
        kind = SAVEPOINT if restored["is_savepoint"] else CHECKPOINT
        return SavedState(kind, restored["external_path"], int(restored["restore_timestamp"]), job["jid"])
    return max(found, key=lambda one: one.at_ms, default=None)


def newest_of(rest: FlinkRest, jobs: list[Mapping[str, Any]]) -> SavedState | None:
    """The state of the newest of these jobs that has any; ``jobs`` as of ``ended_jobs``.

    Raises:
        LocalStackError: Flink does not answer.
    """
    if jobs:
        wait_for_news(rest)
    return next((state for job in jobs if (state := newest_state(rest, job)) is not None), None)


def wait_for_news(rest: FlinkRest) -> None:
    """Wait until what Flink tells of checkpoints is no older than now: it answers from a copy for a while.

    Older news would be of an older checkpoint, from where actions that are committed would be made again.
    """
    time.sleep(rest.setting_ms("web.refresh-interval", _FLINK_DEFAULT_MS) / 1000)


def _named(jobs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{job['name']!r} ({job['jid']})" for job in jobs)
