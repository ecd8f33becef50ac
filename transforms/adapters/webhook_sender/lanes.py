"""The lane of one destination: its threads, queue, rate limit and breaker, which no other destination shares."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

from transforms.adapters.http.breaker import Breaker
from transforms.adapters.threads import DaemonThreads
from transforms.adapters.webhook_sender.sender import Sender
from transforms.domain.base.backoff import Backoff
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.users.fetched_user import BREAKER_OPEN, OTHER
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.results import Outcome, SendResult

# A kind of error beside those of ``sender``: the receiver asked all callers to wait (429 or 503 with Retry-After).
PAUSED: Final = "paused"

QUICK_RETRIES: Final = 2
QUICK_S: Final = 5.0
_QUICK: Final = Backoff(first_s=0.25, longest_s=2.0)


class TokenBucket:
    """Spreads calls evenly at ``rate_per_s``, so that no second has more. Thread-safe; times are of any one clock, s.

    Not from a library: aiolimiter needs asyncio, and limits has no reservations of tokens that are still to come.
    """

    def __init__(self, rate_per_s: float) -> None:
        self._between_s = 1 / rate_per_s
        self._next_s = float("-inf")
        self._lock = threading.Lock()

    def take(self, now_s: float) -> float:
        """Reserve a token; returns the seconds until it is there, 0 if it is there now."""
        with self._lock:
            due_s = max(self._next_s, now_s)
            self._next_s = due_s + self._between_s
            return due_s - now_s


class FullError(EventTriggerError):
    """A destination's queue has no room."""


class Lane:
    """Sends the webhooks of one destination in their order, a few at a time. Thread-safe.

    A lane has ``max_in_flight`` threads and a queue for ``max_waiting`` webhooks, keeps the destination's rate (its
    share for one of ``harnesses`` processes), makes quick retries, and stops at an open breaker. A destination that
    fails or hangs therefore delays only its own lane.

    Attributes:
        breaker: the destination's breaker.
    """

    def __init__(
        self,
        destination: Destination,
        sender: Sender,
        harnesses: int,
        max_waiting: int,
        *,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._sender = sender
        self._threads = DaemonThreads(destination.max_in_flight, f"webhook-{destination.name}")
        self._room = threading.BoundedSemaphore(destination.max_in_flight + max_waiting)
        self._bucket = None if destination.rate is None else TokenBucket(destination.rate / harnesses)
        self.breaker = breaker or Breaker(clock=clock)
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._paused_until_s = 0.0

    def submit(self, webhook_id: str, body: bytes) -> Future[SendResult]:
        """Send in one of the lane's threads.

        Raises:
            FullError: the queue is full.
        """
        if not self._room.acquire(blocking=False):
            raise FullError
        future = self._threads.submit(self.send, webhook_id, body)
        room = self._room  # a reference to self would keep the threads alive
        future.add_done_callback(lambda _: room.release())
        return future

    def send(self, webhook_id: str, body: bytes) -> SendResult:
        """Send one webhook in this thread, with quick retries; never raises."""
        ends_s = self._clock() + QUICK_S
        result = self._try(webhook_id, body)
        for tries in range(1, QUICK_RETRIES + 1):
            pause_s = _QUICK.pause_s(tries, result.retry_after_s, self._chance())
            hopeless = result.outcome is not Outcome.RETRY or result.attempts == 0
            if hopeless or self._clock() + pause_s > ends_s:
                break
            self._sleep(pause_s)
            again = self._try(webhook_id, body)
            if again.attempts == 0:
                break  # the former result says more
            result = replace(again, attempts=result.attempts + 1)
        return result

    def _try(self, webhook_id: str, body: bytes) -> SendResult:
        """One attempt when the rate allows it, unless the receiver asked for a pause or the breaker is open."""
        held = self._held()
        if held is None and self._bucket is not None and (wait_s := self._bucket.take(self._clock())) > 0:
            self._sleep(wait_s)
            held = self._held()
        if held is not None:
            return held
        permit = self.breaker.enter()
        if permit is None:
            return _not_sent(BREAKER_OPEN, "breaker open")
        healthy = False
        try:
            result = self._sender.attempt(webhook_id, body)
            healthy = result.healthy
        except Exception as error:  # noqa: BLE001 - no error of a sender may lose a webhook
            return SendResult(Outcome.RETRY, error_kind=OTHER, error=f"{type(error).__name__}: {error}")
        finally:
            self.breaker.leave(permit, healthy)
        if result.retry_after_s is not None and result.status in (429, 503):
            self._paused_until_s = max(self._paused_until_s, self._clock() + result.retry_after_s)
        return result

    def _held(self) -> SendResult | None:
        paused_s = self._paused_until_s - self._clock()
        if paused_s > 0:
            return _not_sent(PAUSED, "the receiver asked to wait", paused_s)
        return None if self.breaker.allows() else _not_sent(BREAKER_OPEN, "breaker open")


def _not_sent(kind: str, error: str, retry_after_s: float | None = None) -> SendResult:
    return SendResult(Outcome.RETRY, 0, error_kind=kind, error=error, retry_after_s=retry_after_s)
