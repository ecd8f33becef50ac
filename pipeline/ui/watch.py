"""Looks at a job again and again, so that pages have rates of the last minute at hand."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.job.status import Look, NoJobError, status_of
from runners.flink.errors import LocalStackError

WINDOW_S: Final = 60.0


class Watch:
    """Takes looks until it is closed; ``look`` gives one and the job's id. A context manager.

    ``status`` is None until there have been two looks with metrics, ``trouble`` says why there is no newer one.
    """

    def __init__(self, look: Callable[[], Look], every_s: float, window_s: float = WINDOW_S) -> None:
        self._look = look
        self._every_s = every_s
        self._window_s = window_s
        self._looks: deque[Look] = deque()
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
        """Take one look."""
        try:
            now = self._look()
        except (LocalStackError, NoJobError) as error:
            self.trouble = str(error)
            return
        looks = self._looks
        if looks and looks[-1].job["jid"] != now.job["jid"]:
            looks.clear()
        if not now.ours and not looks and now.job["state"] == "RUNNING":
            # Flink fetches metrics when it is asked for them: compared with none at all, all would be new.
            self.trouble = "Flink has not told the job's metrics yet"
            return
        looks.append(now)
        while len(looks) > 2 and looks[1].at_s <= now.at_s - self._window_s:
            looks.popleft()
        self.status, self.trouble = status_of(looks[0], now), None
