"""Counts over time in a bounded number of buckets: the buckets become wider as the time becomes longer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

_MINUTE_MS: Final = 60_000
# Each width is a multiple of the one before, so that buckets can be merged. 2 days, 4 days, … follow.
_WIDTHS_MS: Final = [minutes * _MINUTE_MS for minutes in (1, 5, 15, 60, 180, 360, 720, 1440)]
_MAX_BUCKETS: Final = 2000


def next_width_ms(width_ms: int) -> int:
    """Return the next width: a minute, five, fifteen, an hour, three, six, twelve, a day, two days, four, …"""
    return next((wider_ms for wider_ms in _WIDTHS_MS if wider_ms > width_ms), 2 * width_ms)


def wider(buckets: Iterable[tuple[int, int]], width_ms: int) -> list[tuple[int, int]]:
    """Merge buckets (start in ms, count) to a later width."""
    counts = Counter[int]()
    for start_ms, number in buckets:
        counts[start_ms // width_ms * width_ms] += number
    return sorted(counts.items())


class Timeline:
    """Counts in buckets of a minute, or of the next width when there are more than ``max_buckets``."""

    def __init__(self, max_buckets: int = _MAX_BUCKETS) -> None:
        self.width_ms = _WIDTHS_MS[0]
        self._max_buckets = max_buckets
        self._counts: Counter[int] = Counter()

    def add(self, at_ms: int, number: int = 1) -> None:
        """Add ``number`` to the bucket of a time (ms)."""
        self._counts[at_ms // self.width_ms * self.width_ms] += number
        while len(self._counts) > self._max_buckets:
            self.width_ms = next_width_ms(self.width_ms)
            self._counts = Counter(dict(wider(self._counts.items(), self.width_ms)))

    def buckets(self) -> list[tuple[int, int]]:
        """Return start (ms) and count of each bucket that is not empty, ascending."""
        return sorted(self._counts.items())
