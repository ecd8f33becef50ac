"""Options of the group "Flink": the runner, the job and its cluster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.launch.options.fields import DIRECT_RUNNER, FLINK, FLINK_RUNNER, JSON, TEXT, option

_option = partial(option, FLINK)


@dataclass(frozen=True, kw_only=True)
class FlinkOptions:
    """How the launcher submits the job, and how Flink runs it."""

    runner: str = _option(
        DIRECT_RUNNER,
        "DirectRunner runs once over what is there now and ends",
        choices=(DIRECT_RUNNER, FLINK_RUNNER),
    )

    flink_master: str | None = _option(
        None, "HOST:PORT of Flink's REST endpoint; without it a local cluster is started"
    )
    job_name: str = _option("event-trigger", "name of the Flink job")
    parallelism: int = _option(2, "subtasks of every step", unit="slots", least=1, most=32768)
    checkpointing_interval_ms: int = _option(60_000, "time between checkpoints", unit="ms", least=100)
    savepoint_path: str | None = _option(
        None, "savepoint or checkpoint to start from; `python -m pipeline resume` finds it"
    )
    allow_non_restored_state: bool = _option(
        False, "start although parts of the savepoint belong to no step any more, and drop them"
    )
    start_without_state: bool = _option(
        False, "start anew although an ended job of this name has left state on the cluster"
    )
    checkpoint_dir_is_shared: bool = _option(False, "all machines of the cluster share its file:// checkpoint folder")
    bundle_time_ms: int = _option(6, "longest time of a Beam bundle", unit="ms", least=1, most=10_000)
    bundle_size: int = _option(1000, "micro-batches that end a bundle", unit="batches", least=1)
    workers_per_task_manager: int = _option(
        2, "Python workers of a TaskManager: its number of slots", unit="processes", least=1, most=64
    )
    worker_keep_ms: int = _option(
        0, "how long workers wait for their job to come back after a failure", unit="ms", least=0, most=600_000
    )
    worker_command: str | None = _option(
        None, "program that starts a Python worker on the TaskManagers; default: this environment's", unit="path"
    )
    detached: bool = _option(False, "return as soon as Flink has taken the job")
    log_format: str = _option(TEXT, "how the launcher tells what it does, on standard error", choices=(TEXT, JSON))
    plan_file: Path | None = _option(None, "write the Flink plan as JSON to this file, submit nothing", unit="path")
