"""How often a destination is called."""

from __future__ import annotations

import threading


class TokenBucket:
    """Allows ``rate_per_s`` in the long run and ``burst`` at once. Thread-safe; times are of any one clock, seconds."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._between_s = 1 / rate_per_s
        self._slack_s = (burst - 1) / rate_per_s
        self._next_s = float("-inf")  # when the bucket would have its next token if it held just one
        self._lock = threading.Lock()

    def take(self, now_s: float) -> float:
        """Take a token, if need be one that is still to come; the seconds until it is there."""
        with self._lock:
            due_s = max(self._next_s, now_s)
            self._next_s = due_s + self._between_s
            return max(0.0, due_s - self._slack_s - now_s)
