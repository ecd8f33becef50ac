"""Snapshots of a job that is well, and of what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.job.snapshot import JobSnapshot

JOB = "0123456789abcdef0123456789abcdef"
NOW_MS = 10_000_000


def healthy(at_s: float = 0.0, lag: int | None = 0, **metrics: int) -> JobSnapshot:
    """A job with two steps on one TaskManager; two underscores in a metric's name are a dot."""
    return JobSnapshot(
        at_s,
        {
            "jid": JOB,
            "name": "shop",
            "state": "RUNNING",
            "duration": 500_000,
            "now": NOW_MS,
            "vertices": [{"name": name, "status": "RUNNING", "parallelism": 2} for name in ("ReadEvents", "Handle")],
        },
        0,
        {
            "counts": {"completed": 8, "failed": 0},
            "latest": {"completed": completed(NOW_MS - 4000), "failed": None},
            "history": [{"status": "COMPLETED"}],
            "interval_ms": 10_000,
        },
        0,
        lag,
        {name.replace("__", "."): [value] for name, value in {"events": 0, **metrics}.items()},
        round(1000 * at_s) + 400_000,
        (),
        [{"slotsNumber": 2, "timeSinceLastHeartbeat": NOW_MS - 900}],
        {"heartbeat.interval": "2000", "metrics.fetcher.update-interval": "1000"},
    )


def completed(at_ms: int, took_ms: int = 300) -> dict[str, Any]:
    """A completed checkpoint."""
    return {"latest_ack_timestamp": at_ms, "end_to_end_duration": took_ms, "state_size": 5_000_000}


def failure(seconds_ago: float, cause: str = "Connection reset") -> dict[str, Any]:
    """A failure of the job as Flink tells it."""
    trace = (
        f"org.apache.flink.runtime.JobException: failed\n\tat a.b.C\nCaused by: java.io.IOException: {cause}\n\tat d"
    )
    return {"timestamp": NOW_MS - round(1000 * seconds_ago), "stacktrace": trace}


def of_job(snapshot: JobSnapshot, **changed: Any) -> JobSnapshot:
    """The snapshot with other fields of Flink's answer about the job."""
    return replace(snapshot, job={**snapshot.job, **changed})


def of_checkpoints(snapshot: JobSnapshot, **changed: Any) -> JobSnapshot:
    """The snapshot with other fields of Flink's answer about checkpoints."""
    return replace(snapshot, checkpoints={**snapshot.checkpoints, **changed})


def steps(snapshot: JobSnapshot, *states: str, state: str = "RUNNING") -> JobSnapshot:
    """The snapshot with its steps in these states."""
    vertices = [{"name": str(number), "status": status, "parallelism": 2} for number, status in enumerate(states)]
    return of_job(snapshot, vertices=vertices, state=state)
