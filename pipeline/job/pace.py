"""Limits how fast a loop runs."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Limits a loop to ``rate`` turns a second, spread evenly; None does not limit it."""

    def __init__(
        self,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pause_s = 0.0 if rate is None else 1 / rate
        self._clock = clock
        self._sleep = sleep
        self._next_s = clock()

    def wait(self) -> None:
        """Sleep until the next turn is due."""
        now_s = self._clock()
        if self._next_s > now_s:
            self._sleep(self._next_s - now_s)
        self._next_s = max(self._next_s, now_s) + self._pause_s
