"""Options of the group "Flink": the runner, the job and its cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.launch.options.fields import DIRECT_RUNNER, FLINK_RUNNER, JSON, TEXT, flink_option


@dataclass(frozen=True, kw_only=True)
class FlinkOptions:
    """How the launcher submits the job, and how Flink runs it."""

    runner: str = flink_option(
        DIRECT_RUNNER,
        "DirectRunner runs once over what is there now and ends",
        choices=(DIRECT_RUNNER, FLINK_RUNNER),
    )

    flink_master: str | None = flink_option(
        None, "HOST:PORT of Flink's REST endpoint; without it a local cluster is started"
    )
    job_name: str = flink_option("event-trigger", "name of the Flink job")
    parallelism: int = flink_option(2, "subtasks of every step", unit="slots", least=1, most=32768)
    checkpointing_interval_ms: int = flink_option(60_000, "time between checkpoints", unit="ms", least=100)
    savepoint_path: str | None = flink_option(
        None, "savepoint or checkpoint to start from; `python -m pipeline resume` finds it"
    )
    allow_non_restored_state: bool = flink_option(
        False, "start although parts of the savepoint belong to no step any more, and drop them"
    )
    start_without_state: bool = flink_option(
        False, "start anew although an ended job of this name has left state on the cluster"
    )
    checkpoint_dir_is_shared: bool = flink_option(
        False, "all machines of the cluster share its file:// checkpoint folder"
    )
    bundle_time_ms: int = flink_option(6, "longest time of a Beam bundle", unit="ms", least=1, most=10_000)
    bundle_size: int = flink_option(1000, "micro-batches that end a bundle", unit="batches", least=1)
    workers_per_task_manager: int = flink_option(
        2, "Python workers of a TaskManager: its number of slots", unit="processes", least=1, most=64
    )
    worker_keep_ms: int = flink_option(
        0, "how long workers wait for their job to come back after a failure", unit="ms", least=0, most=600_000
    )
    worker_command: str | None = flink_option(
        None, "program that starts a Python worker on the TaskManagers; default: this environment's", unit="path"
    )
    detached: bool = flink_option(False, "return as soon as Flink has taken the job")
    log_format: str = flink_option(TEXT, "how the launcher tells what it does, on standard error", choices=(TEXT, JSON))
    plan_file: Path | None = flink_option(
        None, "write the Flink plan as JSON to this file, submit nothing", unit="path"
    )
