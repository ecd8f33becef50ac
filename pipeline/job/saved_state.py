"""What state an ended job has left, from which another job can start."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.job.checkpoint_storage import is_visible, stored_savepoints
from pipeline.timestamps import shown_time
from runners.flink.errors import NotFoundError
from runners.flink.rest import TERMINAL_STATES, FlinkRest

CHECKPOINT: Final = "checkpoint"
SAVEPOINT: Final = "savepoint"
_FLINK_DEFAULT_MS: Final = 3000


@dataclass(frozen=True, slots=True)
class SavedState:
    """A checkpoint or savepoint, its path as Flink wrote it, and when it was taken [ms since the epoch].

    Attributes:
        kind: ``CHECKPOINT`` or ``SAVEPOINT``.
        path: where it lies.
        at_ms: when it was taken.
        job_id: the job; of a savepoint that the cluster has forgotten the first digits, as its folder is named.
        size_bytes: its size, None if nobody knows.
    """

    kind: str
    path: str
    at_ms: int
    job_id: str
    size_bytes: int | None = None

    @property
    def place(self) -> str:
        """The path in one form."""
        return _place(self.path)

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


def savepoints(rest: FlinkRest, folder: str | None, endpoint: str | None) -> list[SavedState]:
    """The savepoints that the cluster's jobs remember and those that lie in a folder, the newest first.

    Raises:
        LocalStackError: Flink does not answer.
        S3Error: the folder is in S3, which refuses or does not answer.
    """
    found = {}
    for path, at_ms, job_id, size in [] if folder is None else stored_savepoints(folder, endpoint):
        found[_place(path)] = SavedState(SAVEPOINT, path, at_ms, job_id, size)
    # What the cluster remembers of this folder, and is not there, was deleted.
    gone = f"{_place(folder)}/" if folder is not None and is_visible(folder) else None
    for job in rest.jobs():
        with contextlib.suppress(NotFoundError):  # the job ended before its first checkpoint
            for taken in rest.checkpoints(job["jid"]).get("history", []):
                if taken.get("is_savepoint") and taken.get("status") == "COMPLETED" and taken.get("external_path"):
                    path, at_ms = taken["external_path"], int(taken["trigger_timestamp"])
                    if gone is None or not _place(path).startswith(gone) or _place(path) in found:
                        found[_place(path)] = SavedState(SAVEPOINT, path, at_ms, job["jid"], taken.get("state_size"))
    return sorted(found.values(), key=lambda state: state.at_ms, reverse=True)


def places_in_use(rest: FlinkRest) -> set[str]:
    """The places of the checkpoints and savepoints from which jobs that are not over have started.

    Raises:
        LocalStackError: Flink does not answer.
    """
    places = set()
    for job in rest.jobs():
        if job["state"] not in TERMINAL_STATES:
            with contextlib.suppress(NotFoundError):
                restored = rest.checkpoints(job["jid"])["latest"].get("restored")
                if restored and restored.get("external_path"):
                    places.add(_place(restored["external_path"]))
    return places


def _place(path: str) -> str:
    """The path in one form: Flink writes file:/ where others write file:///."""
    return path.rstrip("/").replace("file:///", "file:/")


def wait_for_checkpoint_refresh(rest: FlinkRest) -> None:
    """Wait until Flink's REST API shows the checkpoints that are complete now: it answers from a copy.

    A job that started from an older checkpoint would make actions again that are committed already.
    """
    time.sleep(rest.setting_ms("web.refresh-interval", _FLINK_DEFAULT_MS) / 1000)
