"""A circuit breaker: it stops asking somebody who fails, and finds out when that is over. No network, no waiting."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable


class Permit(enum.Enum):
    """What ``Breaker.enter`` allows; a ``PROBE`` is the only one let through, so it should be cheap."""

    NORMAL = enum.auto()
    PROBE = enum.auto()


class Breaker:
    """Opens after ``failures`` failures in a row, then lets one probe through after a pause that doubles.

    Thread-safe. Every permit must be handed back with ``leave``; a probe that is not blocks all others.
    """

    def __init__(
        self,
        failures: int = 10,
        first_pause_s: float = 1.0,
        longest_pause_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = failures
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0  # in a row, while closed
        self._pause_s = first_pause_s
        self._probe_at: float | None = None  # None is closed
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether only probes are let through."""
        return self._probe_at is not None

    def enter(self) -> Permit | None:
        """Leave to go ahead; None while the breaker is open."""
        with self._lock:
            if self._probe_at is None:
                return Permit.NORMAL
            if self._probing or self._clock() < self._probe_at:
                return None
            self._probing = True
            return Permit.PROBE

    def leave(self, permit: Permit, healthy: bool) -> None:
        """What became of it. Of what began before the breaker opened, a success closes it and a failure is old news."""
        with self._lock:
            if permit is Permit.PROBE:
                self._probing = False
            if healthy:
                self._failures, self._probe_at, self._pause_s = 0, None, self._first_pause_s
            elif self._probe_at is None:
                self._failures += 1
                if self._failures >= self._allowed:
                    self._probe_at = self._clock() + self._pause_s
            elif permit is Permit.PROBE:
                self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
                self._probe_at = self._clock() + self._pause_s
