"""Which rules may run: a rule that keeps hitting its limits is set aside for a while, then tried again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Record:
    trips: deque[int] = field(default_factory=deque)
    until_ms: int | None = None
    pause_ms: int = 0


class Quarantine:
    """Rules that hit a limit ``trips`` times within ``window_ms`` do not run for ``pause_ms``.

    After the pause a rule is on trial: its next trip sets it aside at once, for twice as long, up to
    ``longest_pause_ms``; ``window_ms`` without a trip end the trial. All times are ms of the caller's clock. A worker's
    threads share one quarantine without a lock: each method makes one small change that another thread cannot spoil.
    """

    def __init__(
        self, trips: int = 3, window_ms: int = 600_000, pause_ms: int = 600_000, longest_pause_ms: int = 3_600_000
    ) -> None:
        self._trips = trips
        self._window_ms = window_ms
        self._pause_ms = pause_ms
        self._longest_pause_ms = longest_pause_ms
        self._records: dict[str, _Record] = {}

    def __bool__(self) -> bool:
        """Whether any rule has tripped lately; until then, every rule may run."""
        return bool(self._records)

    def allows(self, rule: str, now_ms: int) -> bool:
        """Whether the rule may run now."""
        record = self._records.get(rule)
        if record is None:
            return True
        if record.until_ms is None:
            if record.trips and record.trips[-1] + self._window_ms <= now_ms:
                self._records.pop(rule, None)
            return True
        if now_ms >= record.until_ms + self._window_ms:
            self._records.pop(rule, None)
        return now_ms >= record.until_ms

    def trip(self, rule: str, now_ms: int) -> bool:
        """Record that the rule hit a limit; True if that set it aside."""
        record = self._records.setdefault(rule, _Record())
        if record.until_ms is not None:
            if now_ms < record.until_ms:
                return False  # another thread's call that began before the pause
            record.pause_ms = min(record.pause_ms * 2, self._longest_pause_ms)
        else:
            record.trips.append(now_ms)
            while record.trips[0] + self._window_ms <= now_ms:
                record.trips.popleft()
            if len(record.trips) < self._trips:
                return False
            record.pause_ms = self._pause_ms
        record.until_ms = now_ms + record.pause_ms
        return True

    def until_ms(self, rule: str) -> int | None:
        """When the rule's pause ends or ended; None for a rule that was not set aside lately."""
        record = self._records.get(rule)
        return None if record is None else record.until_ms
