"""Clocks of a worker."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


def wall_clock_ms() -> int:
    """Processing time, ms since the epoch."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds since some moment in the past; unlike the time of day, they never jump."""
    return time.monotonic_ns() // 1_000_000
