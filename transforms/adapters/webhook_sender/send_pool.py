"""Sends webhooks outside the event path: a caller requests them by id and polls for the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Final, NoReturn

from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.keyed_calls import KeyedCalls
from transforms.adapters.webhook_sender.lanes import CallGuard, FullError, Lane
from transforms.adapters.webhook_sender.sender import Sender, webhook_transport
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.results import Outcome, SendResult
from transforms.domain.webhooks.url_policy import EgressPolicy

# A kind of error beside those of ``sender`` and ``lanes``.
NO_DESTINATION: Final = "no_destination"


class SendPool(KeyedCalls[SendResult]):
    """Sends webhooks in the lanes of their destinations: one attempt per id at a time, results kept until taken.

    Webhooks of one destination start in the order of their requests, but they overlap and overtake each other. A caller
    that needs an order, of a user's webhooks to one destination for example, requests the next when the former has
    ended.

    A webhook that fails for now is repeated at most twice within some seconds; the caller makes later
    attempts (``domain.webhooks.retries``). Shared by all user shards of a worker, so every method may be called from
    any thread. A rate is divided by ``harnesses``, the number of processes with such a pool.

    Raises:
        CaFileError: ``ca_file`` (PEM; default: the public CAs) cannot be used.
    """

    def __init__(
        self,
        destinations: Iterable[Destination],
        policy: EgressPolicy,
        *,
        harnesses: int = 1,
        ca_file: str | None = None,
        max_waiting: int = 1000,
        io: IoThread | None = None,
        sender: Callable[[Destination], Sender] | None = None,
    ) -> None:
        # Without its result a webhook is sent again: results are kept long.
        super().__init__(kept=20_000, kept_s=600.0)
        thread = io or IoThread("webhooks")
        transport = webhook_transport(thread, policy, ca_file)
        make = sender or (lambda destination: Sender(destination, policy, thread, transport))
        self._lanes = {
            destination.name: Lane(destination, make(destination), thread, harnesses, max_waiting)
            for destination in destinations
        }

    def failing(self) -> dict[str, bool]:
        """By destination whether its breaker is open."""
        return {name: lane.breaker.is_open for name, lane in self._lanes.items()}

    def request(
        self, webhook_id: str, destination: str, body: bytes, expires_ms: int = 0, guard: CallGuard | None = None
    ) -> bool:
        """Send, unless the webhook is in flight or its result waits to be taken; False if the queue is full.

        From ``expires_ms`` on, if it is not 0, no attempt is made. ``guard`` is asked before each request, and told the
        result.
        """
        lane = self._lanes.get(destination)
        if lane is None:
            error = f"destination {destination!r} is not in the destinations file"
            result = SendResult(Outcome.REFUSED, 0, error_kind=NO_DESTINATION, error=error)
            self._start(webhook_id, lambda: _done(result))
            return True
        try:
            self._start(webhook_id, lambda: lane.submit(webhook_id, body, expires_ms, guard))
        except FullError:
            return False
        return True

    def stop(self, webhook_ids: Iterable[str]) -> None:
        """Make no further attempt of these webhooks; their results say what became of them."""
        for webhook_id in webhook_ids:
            for lane in self._lanes.values():
                lane.stop(webhook_id)

    def wait(self, webhook_id: str) -> SendResult:
        """Wait for the result of a webhook that was requested, and take it.

        Raises:
            LookupError: it was not requested, or its result was taken.
        """
        return self._detach(webhook_id, _not_requested).result()


def _not_requested() -> NoReturn:
    raise LookupError("no such webhook was requested, or its result was taken")


def _done(result: SendResult) -> Future[SendResult]:
    future: Future[SendResult] = Future()
    future.set_result(result)
    return future
