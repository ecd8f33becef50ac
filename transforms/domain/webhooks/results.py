"""Results of attempts to send a webhook."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Outcome(enum.Enum):
    """What happens to a webhook after an attempt."""

    DELIVERED = "delivered"  # 2xx
    RETRY = "retry"  # 408, 425, 429, 5xx, no answer: a later attempt may succeed
    REFUSED = "refused"  # any other status, or a URL that is not allowed: another attempt would fail too
    GONE = "gone"  # 410: the receiver wants no more webhooks


@dataclass(frozen=True, slots=True)
class SendResult:
    """The result of sending a webhook.

    Attributes:
        outcome: what happens to the webhook.
        attempts: HTTP requests that were made; 0 if the webhook was blocked, unsigned or held back.
        status: HTTP status of the last request.
        error_kind: why the webhook was not delivered, for counters.
        error: why the webhook was not delivered, for people.
        retry_after_s: the pause that the receiver asked for.
        latency_ms: duration of the last request.
        excerpt: the first 500 characters of the answer, without the secrets that were sent.
        healthy: whether the destination answered in time; its circuit breaker counts this.
    """

    outcome: Outcome
    attempts: int = 1
    status: int | None = None
    error_kind: str | None = None
    error: str | None = None
    retry_after_s: float | None = None
    latency_ms: int = 0
    excerpt: str = ""
    healthy: bool = True
