"""Decides when a webhook is sent again and when it is given up."""

from __future__ import annotations

from typing import Final

from pydantic import Field, model_validator

from transforms.domain.base.backoff import Backoff
from transforms.domain.base.durations import Duration
from transforms.domain.base.models import StrictModel

_FIRST: Final = Duration.parse("10s")
_LONGEST: Final = Duration.parse("6h")
_GIVE_UP: Final = Duration.parse("3d")


class RetrySchedule(StrictModel):
    """Exponential back-off with full jitter: the bound of a pause grows from ``first`` by ``factor`` to ``longest``."""

    first: Duration = Field(default=_FIRST, description="the bound of the first pause")
    factor: float = Field(default=2.0, ge=1, le=10, description="by which the bound grows")
    longest: Duration = Field(default=_LONGEST, description="bounds every pause, and what Retry-After can ask for")
    give_up_after: Duration = Field(default=_GIVE_UP, description="since the first attempt: none begins later")

    @model_validator(mode="after")
    def _grows(self) -> RetrySchedule:
        if self.first.ms > self.longest.ms:
            raise ValueError(f"first ({self.first}) is longer than longest ({self.longest})")
        return self

    def next_try_s(
        self, first_attempt_s: float, now_s: float, failures: int, retry_after_s: float | None, chance: float
    ) -> float | None:
        """Compute the time of the next attempt.

        Args:
            first_attempt_s: time of the first attempt, on the caller's clock.
            now_s: the current time on the same clock.
            failures: failed attempts so far, 1 or more.
            retry_after_s: the pause that the receiver asked for; the schedule's pause comes on top.
            chance: random number from 0 to 1, drawn for this pause.

        Returns:
            The time of the next attempt on the same clock, None to give up.
        """
        longest_s = self.longest.ms / 1000
        retry_after_s = None if retry_after_s is None else min(retry_after_s, longest_s)
        backoff = Backoff(self.first.ms / 1000, longest_s, self.factor)
        next_s = now_s + backoff.pause_s(failures, retry_after_s, chance)
        return next_s if next_s <= first_attempt_s + self.give_up_after.ms / 1000 else None
