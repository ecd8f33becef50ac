"""A circuit breaker: it stops calls to a server that fails, and finds out when the server is back. No network."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable


class Permit(enum.Enum):
    """Permission for one call; while the breaker is open a ``PROBE`` is the only call in flight."""

    NORMAL = enum.auto()
    PROBE = enum.auto()


class Breaker:
    """Opens after ``failures`` failed calls in a row, then lets one probe through after a pause that doubles.

    A success resets the count, so single failures do not open the breaker; a moment in which no call gets through does.
    The first pause is short, so that such a moment costs little.
    Thread-safe. Every permit must be handed back with ``leave``; a probe that is not handed back blocks all others.

    Attributes:
        is_open: whether only probes get a permit; read only.
    """

    def __init__(
        self,
        failures: int = 20,
        first_pause_s: float = 0.5,
        longest_pause_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = failures
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self.is_open = False
        self._failures = 0  # in a row, while closed
        self._pause_s = first_pause_s
        self._probe_at = 0.0  # while open
        self._probing = False

    def allows(self) -> bool:
        """Whether ``enter`` would return a permit now."""
        with self._lock:
            return self._permit() is not None

    def enter(self) -> Permit | None:
        """A permit for one call; None while the breaker is open."""
        with self._lock:
            permit = self._permit()
            self._probing = self._probing or permit is Permit.PROBE
            return permit

    @property
    def pause_s(self) -> float:
        """The pause before the next probe while the breaker is open: longer with each probe that failed."""
        return self._pause_s

    def probe_in_s(self) -> float:
        """Seconds until a probe may pass; 0 if one may now, or if the breaker is closed."""
        with self._lock:
            return max(0.0, self._probe_at - self._clock()) if self.is_open else 0.0

    def leave(self, permit: Permit, healthy: bool) -> None:
        """Hand back a permit. A call from before the breaker opened closes it by a success; its failure is ignored."""
        with self._lock:
            if permit is Permit.PROBE:
                self._probing = False
            if healthy:
                self._failures, self._pause_s = 0, self._first_pause_s
                self.is_open = False
            elif not self.is_open:
                self._failures += 1
                if self._failures >= self._allowed:
                    self._probe_at = self._clock() + self._pause_s
                    self.is_open = True
            elif permit is Permit.PROBE:
                self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
                self._probe_at = self._clock() + self._pause_s

    def _permit(self) -> Permit | None:
        if not self.is_open:
            return Permit.NORMAL
        return None if self._probing or self._clock() < self._probe_at else Permit.PROBE
