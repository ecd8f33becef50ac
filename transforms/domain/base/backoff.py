"""Pauses between attempts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter: a pause is random up to a bound that grows with every failure.

    A pause comes on top of the time that the server asked for (Retry-After). Times are in seconds.
    """

    first_s: float = 0.1
    longest_s: float = 2.0
    factor: float = 2.0

    def pause_s(self, failures: int, retry_after_s: float | None, chance: float) -> float:
        """Compute the pause before the next attempt.

        Args:
            failures: failed attempts so far, 1 or more.
            retry_after_s: the pause that the server asked for.
            chance: random number from 0 to 1.
        """
        try:
            bound_s = min(self.longest_s, self.first_s * self.factor ** (failures - 1))
        except OverflowError:
            bound_s = self.longest_s
        return (retry_after_s or 0.0) + chance * bound_s
