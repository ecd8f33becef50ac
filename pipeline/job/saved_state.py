"""What state an ended job has left, from which another job can start."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.timestamps import shown_time
from runners.flink.errors import NotFoundError
from runners.flink.rest import FlinkRest

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


def newest_state(rest: FlinkRest, job: Mapping[str, Any]) -> SavedState | None:
    """The newest state that a job has left, or the state it started from if it has taken none.

    Flink removes the checkpoints of a job that was stopped with a savepoint, and of no other.

    Raises:
        LocalStackError: Flink does not answer.
    """
    try:
        latest = rest.checkpoints(job["jid"])["latest"]
    except NotFoundError:
        return None  # the job ended before its first checkpoint
    states = []
    savepoint, checkpoint, restored = (latest.get(name) for name in ("savepoint", "completed", "restored"))
    for snapshot, kind in ((savepoint, SAVEPOINT), (checkpoint, CHECKPOINT)):
        is_kept = kind == SAVEPOINT or job["state"] != "FINISHED"
        if snapshot and is_kept and snapshot.get("external_path") and not snapshot.get("discarded"):
            kind = SAVEPOINT if snapshot.get("is_savepoint") else kind
            states.append(SavedState(kind, snapshot["external_path"], int(snapshot["trigger_timestamp"]), job["jid"]))
    if not states and restored and restored.get("external_path"):
        kind = SAVEPOINT if restored["is_savepoint"] else CHECKPOINT
        return SavedState(kind, restored["external_path"], int(restored["restore_timestamp"]), job["jid"])
    return max(states, key=lambda state: state.at_ms, default=None)


def newest_state_of_any(rest: FlinkRest, jobs: Sequence[Mapping[str, Any]]) -> SavedState | None:
    """The state of the first of these jobs that has left any.

    Raises:
        LocalStackError: Flink does not answer.
    """
    if jobs:
        wait_for_checkpoint_refresh(rest)
    return next((state for job in jobs if (state := newest_state(rest, job)) is not None), None)


def wait_for_checkpoint_refresh(rest: FlinkRest) -> None:
    """Wait until Flink's REST API shows the checkpoints that are complete now: it answers from a copy.

    A job that started from an older checkpoint would make actions again that are committed already.
    """
    time.sleep(rest.setting_ms("web.refresh-interval", _FLINK_DEFAULT_MS) / 1000)
