"""Pauses between tries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between tries: full jitter (anything up to a bound that grows), after what the server asked for."""

    first_s: float = 0.1
    longest_s: float = 2.0
    factor: float = 2.0

    def pause_s(self, tries: int, retry_after_s: float | None, chance: float) -> float:
        """After ``tries`` failed ones; ``chance`` is 0 to 1."""
        try:
            bound_s = min(self.longest_s, self.first_s * self.factor ** (tries - 1))
        except OverflowError:
            bound_s = self.longest_s
        return (retry_after_s or 0.0) + chance * bound_s
