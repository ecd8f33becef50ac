"""The lane of one destination: its queue, rate limit and breaker, which no other destination shares."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from transforms.adapters.http.breaker import Breaker, Permit
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.webhook_sender.sender import Sender
from transforms.domain.base.backoff import Backoff
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.users.fetched_user import BREAKER_OPEN, OTHER
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.results import Outcome, SendResult

# A kind of error beside those of ``sender``: the receiver asked all callers to wait (429 or 503 with Retry-After).
PAUSED: Final = "paused"
# Likewise: the webhook has expired, or its user gets nothing any more.
STOPPED: Final = "stopped"

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


class CallGuard(Protocol):
    """What the ledger of deliveries has to do with a webhook on its way."""

    def may_send(self) -> bool:
        """Whether a request may begin now."""

    def ended(self, result: SendResult) -> None:
        """Take note of the last request's result."""


class FullError(EventTriggerError):
    """A destination's queue has no room."""


class Lane:
    """Sends the webhooks of one destination in their order, a few at a time.

    A lane has ``max_in_flight`` webhooks in flight and a queue for ``max_waiting``, keeps the destination's rate (its
    share for one of ``harnesses`` processes), makes quick retries, and stops at an open breaker. A destination that
    fails or hangs therefore delays only its own lane.

    Attributes:
        breaker: the destination's breaker.
    """

    def __init__(
        self,
        destination: Destination,
        sender: Sender,
        io: IoThread,
        harnesses: int,
        max_waiting: int,
        *,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._sender = sender
        self._io = io
        self._room = threading.BoundedSemaphore(destination.max_in_flight + max_waiting)
        self._bucket = None if destination.rate is None else TokenBucket(destination.rate / harnesses)
        self.breaker = breaker or Breaker(clock=clock)
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._jobs: dict[str, _Job] = {}
        # Only used in the I/O thread:
        self._free = destination.max_in_flight
        self._queue: deque[_Job] = deque()
        self._is_serving = False
        self._paused_until_s = 0.0

    def submit(
        self, webhook_id: str, body: bytes, expires_ms: int = 0, guard: CallGuard | None = None
    ) -> Future[SendResult]:
        """Send a webhook, with quick retries; the future never raises. Thread-safe.

        Args:
            webhook_id: its id, a header.
            body: JSON.
            expires_ms: from then on no attempt is made; 0: never.
            guard: is asked before each request, and told the result.

        Raises:
            FullError: the queue is full.
        """
        if not self._room.acquire(blocking=False):
            raise FullError
        job = _Job(webhook_id, body, expires_ms, guard)
        room, jobs = self._room, self._jobs  # a reference to self would keep the lane alive
        jobs[webhook_id] = job

        def ended(_: object) -> None:
            room.release()
            if jobs.get(webhook_id) is job:
                del jobs[webhook_id]

        job.future.add_done_callback(ended)
        self._io.submit(self._enqueue, job)
        return job.future

    def stop(self, webhook_id: str) -> None:
        """Make no further attempt of a webhook; its result is that of the last one, if there was any. Thread-safe."""
        job = self._jobs.get(webhook_id)
        if job is not None:
            job.is_stopped = True

    # In the I/O thread

    def _enqueue(self, job: _Job) -> None:
        self._queue.append(job)
        self._serve()

    def _serve(self) -> None:
        if self._is_serving:
            # A job has ended at once. The loop goes on; a call for each job would overflow the stack.
            return
        self._is_serving = True
        try:
            while self._queue and self._free > 0:
                job = self._queue.popleft()
                if job.future.set_running_or_notify_cancel():
                    self._free -= 1
                    job.quick_until_s = self._clock() + QUICK_S
                    self._try(job)
        finally:
            self._is_serving = False

    def _try(self, job: _Job) -> None:
        """Make an attempt when the rate allows it."""
        held = self._held() or self._ended_before(job)
        if held is not None:
            self._after(job, held)
        elif self._bucket is not None and (wait_s := self._bucket.take(self._clock())) > 0:
            self._io.later(wait_s, self._attempt, job)
        else:
            self._attempt(job)

    def _attempt(self, job: _Job) -> None:
        """Make an attempt unless the receiver asked for a pause or the breaker is open."""
        held = self._held() or self._ended_before(job)
        permit = None if held is not None else self.breaker.enter()
        if permit is None:
            self._after(job, held or _not_sent(BREAKER_OPEN, "breaker open"))
            return
        done = partial(self._ended, job, permit)
        try:
            self._sender.start(job.webhook_id, job.body, done, partial(self._may_send, job))
        except Exception as error:  # noqa: BLE001 - no error of a sender may lose a webhook
            error_text = f"{type(error).__name__}: {error}"
            self._ended(job, permit, SendResult(Outcome.RETRY, error_kind=OTHER, error=error_text, healthy=False))

    def _ended(self, job: _Job, permit: Permit, result: SendResult) -> None:
        self.breaker.leave(permit, result.healthy)
        if result.retry_after_s is not None and result.status in (429, 503):
            self._paused_until_s = max(self._paused_until_s, self._clock() + result.retry_after_s)
        self._after(job, result)

    def _after(self, job: _Job, result: SendResult) -> None:
        """Try again soon, or end."""
        if job.result is not None and result.attempts == 0:
            self._finish(job, job.result)  # the former result says more
            return
        attempts = result.attempts if job.result is None else job.result.attempts + 1
        job.result = result = replace(result, attempts=attempts)
        job.tries += 1
        pause_s = _QUICK.pause_s(job.tries, result.retry_after_s, self._chance())
        hopeless = result.outcome is not Outcome.RETRY or result.attempts == 0 or job.tries > QUICK_RETRIES
        if hopeless or self._clock() + pause_s > job.quick_until_s:
            self._finish(job, result)
        else:
            self._io.later(pause_s, self._try, job)

    def _finish(self, job: _Job, result: SendResult) -> None:
        self._free += 1
        if job.guard is not None:
            job.guard.ended(result)
        job.future.set_result(result)
        self._serve()

    def _ended_before(self, job: _Job) -> SendResult | None:
        """Why a webhook gets no attempt although its destination takes some."""
        if job.is_stopped:
            return _not_sent(STOPPED, "stopped")
        is_over = 0 < job.expires_ms <= self._wall_clock() * 1000
        return _not_sent(STOPPED, "expired") if is_over else None

    def _may_send(self, job: _Job) -> bool:
        """Whether the request may begin now: reading a secret or getting a token may have taken long."""
        return self._ended_before(job) is None and (job.guard is None or job.guard.may_send())

    def _held(self) -> SendResult | None:
        paused_s = self._paused_until_s - self._clock()
        if paused_s > 0:
            return _not_sent(PAUSED, "the receiver asked to wait", paused_s)
        return None if self.breaker.allows() else _not_sent(BREAKER_OPEN, "breaker open")


class _Job:
    __slots__ = (
        "body",
        "expires_ms",
        "future",
        "guard",
        "is_stopped",
        "quick_until_s",
        "result",
        "tries",
        "webhook_id",
    )

    def __init__(self, webhook_id: str, body: bytes, expires_ms: int, guard: CallGuard | None) -> None:
        self.guard = guard
        self.webhook_id = webhook_id
        self.body = body
        self.expires_ms = expires_ms
        self.is_stopped = False
        self.future: Future[SendResult] = Future()
        self.quick_until_s = 0.0
        self.tries = 0
        self.result: SendResult | None = None


def _not_sent(kind: str, error: str, retry_after_s: float | None = None) -> SendResult:
    return SendResult(Outcome.RETRY, 0, error_kind=kind, error=error, retry_after_s=retry_after_s)
