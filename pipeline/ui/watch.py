"""Takes snapshots of a job all the time, so that pages can show the rates of the last minute and the last hour."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.job.jobs import NoJobError
from pipeline.job.status import JobSnapshot, status_of
from pipeline.ui.hour import Hour, Recorder
from runners.flink.errors import LocalStackError

WINDOW_S: Final = 60.0


class Watch:
    """Takes a snapshot every ``every_s`` seconds while the context is open.

    ``status`` is None until there are two snapshots with metrics; ``trouble`` says why there is no newer one.
    ``clock_ms`` gives the times of the hour.
    """

    def __init__(
        self,
        take_snapshot: Callable[[], JobSnapshot],
        every_s: float,
        window_s: float = WINDOW_S,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._take_snapshot = take_snapshot
        self._every_s = every_s
        self._window_s = window_s
        self._clock_ms = clock_ms
        self._snapshots: deque[JobSnapshot] = deque()
        self._recorder = Recorder()
        self._recording = threading.Lock()  # pages read the hour in threads of their own
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.status: Mapping[str, Any] | None = None
        self.trouble: str | None = "Flink has not told anything yet"

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ended.is_set():
            started_s = time.monotonic()
            self.take()
            self._ended.wait(max(0.0, started_s + self._every_s - time.monotonic()))

    def take(self) -> None:
        """Take a snapshot."""
        try:
            now = self._take_snapshot()
        except (LocalStackError, NoJobError) as error:
            self.trouble = str(error)
            with self._recording:
                self._recorder.miss(self._clock_ms(), str(error))
            return
        with self._recording:
            self._recorder.add(self._clock_ms(), now)
        snapshots = self._snapshots
        if snapshots and snapshots[-1].job["jid"] != now.job["jid"]:
            snapshots.clear()
        if not now.metrics and not snapshots and now.job["state"] == "RUNNING":
            # Flink fetches metrics only when they are requested. Compared with none, all counts would be new.
            self.trouble = "Flink has not told the job's metrics yet"
            return
        snapshots.append(now)
        while len(snapshots) > 2 and snapshots[1].at_s <= now.at_s - self._window_s:
            snapshots.popleft()
        self.status, self.trouble = status_of(snapshots[0], now), None

    def hour(self) -> Hour:
        """The hour that ends now."""
        with self._recording:
            return self._recorder.hour(self._clock_ms())
