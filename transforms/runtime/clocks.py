"""Clocks of a worker."""

from __future__ import annotations

import time


def monotonic_ms() -> int:
    """Milliseconds since some moment in the past; unlike the time of day, they never jump."""
    return time.monotonic_ns() // 1_000_000
