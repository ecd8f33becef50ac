"""Waiting for a condition with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], what: str, deadline_s: float = 60, pause_s: float = 0.05) -> None:
    """Wait until the condition holds; fails with ``what`` it is after ``deadline_s``."""
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up, f"not after {deadline_s} s: {what}"
        time.sleep(pause_s)
