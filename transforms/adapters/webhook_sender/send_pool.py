"""Sending webhooks away from the event path: requested by id, their results collected when they have come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Final, NoReturn

from transforms.adapters.keyed_calls import KeyedCalls
from transforms.adapters.webhook_sender.lanes import Attempts, FullError, Lane
from transforms.adapters.webhook_sender.sender import Sender, tls_context
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.results import Outcome, SendResult
from transforms.domain.webhooks.url_policy import EgressPolicy

# A kind of error beside those of ``attempts`` and ``lanes``.
NO_DESTINATION: Final = "no_destination"


class SendPool:
    """Sends webhooks beside the stage: at most once at a time by id, results kept until they are taken.

    Each destination has ``max_in_flight`` threads, a rate, a breaker and a queue of ``max_waiting`` for itself, so that
    one that hangs costs the others nothing. Webhooks of one destination begin in the order in which they are requested,
    but overlap and overtake each other: whoever needs an order (of a user's webhooks to one destination, say) requests
    the next when the one before is done.

    A webhook that fails for now is tried again at most twice within some seconds, in its thread; later tries are the
    caller's (``retries``). Shared by all user shards of a worker, so every method may be called from any thread. A rate
    is divided by ``harnesses``, the number of processes that have such a pool.

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
        sender: Callable[[Destination], Attempts] | None = None,
    ) -> None:
        tls = tls_context(ca_file)
        make = sender or (lambda one: Sender(one, policy, tls))
        self._lanes = {one.name: Lane(one, make(one), harnesses, max_waiting) for one in destinations}
        # A result that goes untaken is sent again by whoever still has the webhook: keep them for long.
        self._calls: KeyedCalls[SendResult] = KeyedCalls(kept=20_000, kept_s=600.0)

    def failing(self) -> dict[str, bool]:
        """Each destination, and whether its breaker is open."""
        return {name: lane.is_failing for name, lane in self._lanes.items()}

    def request(self, webhook_id: str, destination: str, body: bytes) -> bool:
        """Send, unless that is under way or its result waits to be taken; False: the queue is full, ask again later."""
        lane = self._lanes.get(destination)
        if lane is None:
            error = f"destination {destination!r} is not in the destinations file"
            result = SendResult(Outcome.REFUSED, 0, error_kind=NO_DESTINATION, error=error)
            self._calls.start(webhook_id, lambda: _done(result))
            return True
        try:
            self._calls.start(webhook_id, lambda: lane.submit(webhook_id, body))
        except FullError:
            return False
        return True

    def poll(self, webhook_ids: Iterable[str]) -> list[tuple[str, SendResult]]:
        """The results that have come, each once; nothing for ids that were not requested."""
        return self._calls.poll(webhook_ids)

    def wait(self, webhook_id: str) -> SendResult:
        """The result of a webhook that was requested, once, however long its destination takes.

        Raises:
            LookupError: it was not requested, or its result was taken.
        """
        return self._calls.detach(webhook_id, _not_requested).result()

    def withdraw(self, webhook_id: str) -> bool:
        """Do not send one that waits for its turn; whether it is not being sent now."""
        return self._calls.withdraw(webhook_id)

    def troubles(self) -> dict[str, list[str]]:
        """By destination the secrets that cannot be read, and why; where one was read before, that one is in use."""
        return {name: lane.troubles for name, lane in self._lanes.items() if lane.troubles}


def _not_requested() -> NoReturn:
    raise LookupError("no such webhook was requested, or its result was taken")


def _done(result: SendResult) -> Future[SendResult]:
    future: Future[SendResult] = Future()
    future.set_result(result)
    return future
