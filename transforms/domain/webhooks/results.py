"""What an attempt to deliver a webhook came to."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Outcome(enum.Enum):
    """What becomes of a webhook after an attempt."""

    DELIVERED = "delivered"  # 2xx
    RETRY = "retry"  # 408, 425, 429, 5xx, no answer: later it may be
    REFUSED = "refused"  # any other status, or a URL that is not allowed: it will not help to repeat it
    GONE = "gone"  # 410: the receiver wants no more of them


@dataclass(frozen=True, slots=True)
class SendResult:
    """What came of an attempt; ``error_kind`` and ``error`` say why it was not delivered.

    ``retry_after_s`` is what the receiver asked for, ``excerpt`` the first 500 characters of its answer, without the
    secrets that were sent to it. ``attempts`` were made: 0 of a webhook that was blocked, unsigned or held back.
    """

    outcome: Outcome
    attempts: int = 1
    status: int | None = None
    error_kind: str | None = None
    error: str | None = None
    retry_after_s: float | None = None
    latency_ms: int = 0
    excerpt: str = ""
    healthy: bool = True  # the destination answers, and in time: what its breaker counts
