"""How often something happened over time, in few numbers however long that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

_MINUTE_MS: Final = 60_000
# Each is a multiple of the one before, so that buckets can be put together; then 2 days, 4 days, …
_WIDTHS_MS: Final = [minutes * _MINUTE_MS for minutes in (1, 5, 15, 60, 180, 360, 720, 1440)]
_MOST_BUCKETS: Final = 2000


def next_width_ms(width_ms: int) -> int:
    """The width after this one: a minute, five, fifteen, an hour, three, six, twelve, a day, two days, four …"""
    return next((one for one in _WIDTHS_MS if one > width_ms), 2 * width_ms)


def wider(buckets: Iterable[tuple[int, int]], width_ms: int) -> list[tuple[int, int]]:
    """Buckets (start in ms, count) put together to a later width."""
    counts = Counter[int]()
    for start_ms, number in buckets:
        counts[start_ms // width_ms * width_ms] += number
    return sorted(counts.items())


class Timeline:
    """Counts by time: in buckets of a minute, and in wider ones when there would be too many."""

    def __init__(self, most_buckets: int = _MOST_BUCKETS) -> None:
        self.width_ms = _WIDTHS_MS[0]
        self._most = most_buckets
        self._counts: Counter[int] = Counter()

    def add(self, at_ms: int, number: int = 1) -> None:
        """It happened so often at that time."""
        self._counts[at_ms // self.width_ms * self.width_ms] += number
        while len(self._counts) > self._most:
            self.width_ms = next_width_ms(self.width_ms)
            self._counts = Counter(dict(wider(self._counts.items(), self.width_ms)))

    def buckets(self) -> list[tuple[int, int]]:
        """Start of each bucket (ms) and its count, ascending; only where something happened."""
        return sorted(self._counts.items())
