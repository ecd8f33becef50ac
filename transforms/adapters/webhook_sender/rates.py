"""The rate limit of a destination."""

from __future__ import annotations

import threading


class TokenBucket:
    """Allows ``rate_per_s`` in the long run and ``burst`` at once. Thread-safe; times are of any one clock, seconds.

    Not from a library: aiolimiter needs asyncio, and limits has no reservations of tokens that are still to come.
    """

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._between_s = 1 / rate_per_s
        self._slack_s = (burst - 1) / rate_per_s
        self._next_s = float("-inf")  # when a bucket of a single token would have its next one
        self._lock = threading.Lock()

    def take(self, now_s: float) -> float:
        """Reserve a token; returns the seconds until it is there, 0 if it is there now."""
        with self._lock:
            due_s = max(self._next_s, now_s)
            self._next_s = due_s + self._between_s
            return max(0.0, due_s - self._slack_s - now_s)
