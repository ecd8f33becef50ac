"""Looks at a job all the time, so that pages can show its health, the rates of the last minute, and the last hour."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.job.health import Verdict
from pipeline.job.jobs import NoJobError
from pipeline.job.looks import WINDOW_S, Looks
from pipeline.job.snapshot import JobSnapshot
from pipeline.ui.hour import Hour, Recorder
from runners.flink.errors import LocalStackError
from runners.flink.redaction import without_secrets


class Watch:
    """Takes a snapshot every ``every_s`` seconds while the context is open.

    ``status`` is None until there is a snapshot, its lag None while it is unknown; ``trouble`` says why there is no
    newer one. ``where`` are Flink's address and the job's name, and
    ``clock_ms`` gives the times of the hour.
    """

    def __init__(
        self,
        take_snapshot: Callable[[], JobSnapshot],
        every_s: float,
        window_s: float = WINDOW_S,
        where: tuple[str, str] = ("", ""),
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._take_snapshot = take_snapshot
        self._clock_ms = clock_ms
        self._recorder = Recorder()
        self._recording = threading.Lock()  # pages read the hour in threads of their own
        self._looks = Looks(self._recorded, where, every_s, window_s)
        self._every_s = every_s
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
        self._looks.take()
        self.trouble, self.status = self._looks.trouble, self._looks.status

    def _recorded(self) -> JobSnapshot:
        """Take a snapshot, and record that for the hour."""
        try:
            now = self._take_snapshot()
        except (LocalStackError, NoJobError) as error:
            with self._recording:
                self._recorder.miss(self._clock_ms(), without_secrets(str(error)))
            raise
        with self._recording:
            self._recorder.add(self._clock_ms(), now)
        return now

    def hour(self) -> Hour:
        """The hour that ends now."""
        with self._recording:
            return self._recorder.hour(self._clock_ms())

    @property
    def verdict(self) -> Verdict:
        """Whether the job is healthy, now: what was seen too long ago counts as gone."""
        return self._looks.verdict

    @property
    def seen_s(self) -> float | None:
        """How long ago Flink answered last; None if it never did."""
        return self._looks.seen_s
