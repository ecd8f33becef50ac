"""Fetching what the user API knows of a user, away from the event path. How it is asked: ``domain.user_api``."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Protocol

from transforms.domain.history import Row
from transforms.domain.threads import DaemonThreads
from transforms.domain.users import UNAVAILABLE, UNKNOWN, Visit

# Kinds of errors, why a user is unavailable; each has a counter of its own.
TIMEOUT: Final = "timeout"
CONNECTION: Final = "connection"
STATUS: Final = "status"
BREAKER_OPEN: Final = "breaker_open"
TOO_LARGE: Final = "too_large"
BAD_ANSWER: Final = "bad_answer"
OVERFLOW: Final = "overflow"  # too many events waited for the answer
OTHER: Final = "other"  # a fault of the client


@dataclass(frozen=True, slots=True)
class FetchedUser:
    """The user API's answer; ``enrichment`` is one of ``users``' constants.

    Of an unavailable user ``error_kind`` is one of the kinds above and ``error`` a short reason.
    """

    enrichment: str
    profile_json: bytes
    visit: Visit | None
    history: list[Row]
    error_kind: str | None = None
    error: str | None = None


NOTHING_KNOWN: Final = FetchedUser(UNKNOWN, b"{}", None, [])


def unavailable(error_kind: str, error: str) -> FetchedUser:
    """The answer in place of one that did not come."""
    return FetchedUser(UNAVAILABLE, b"{}", None, [], error_kind, error)


class UserApi(Protocol):
    """Asks for one user; blocks; never raises for what the network does."""

    def fetch(self, user_id: str) -> FetchedUser:
        """The user, or the reason why not."""


@dataclass(frozen=True, slots=True)
class NoUserApi:
    """Where no user API is configured: every user is unknown."""

    def fetch(self, user_id: str) -> FetchedUser:
        """Nothing is known of anybody."""
        return NOTHING_KNOWN


_Fetched = tuple[float, FetchedUser]  # when it was, on the monotonic clock


@dataclass(frozen=True, slots=True)
class _Call:
    future: Future[_Fetched]
    asked_ms: int


class FetchPool:
    """Runs fetches beside the stage: at most one a user at a time, answers kept until they are taken.

    Shared by all user shards of a worker, so every method may be called from any thread.
    """

    # Answers nobody takes (their shard moved) go when newer ones come, or are too old to use.
    _KEPT_ANSWERS: Final = 10_000
    _KEPT_S: Final = 60.0

    def __init__(self, api: UserApi, concurrency: int) -> None:
        self._api = api
        self._threads = DaemonThreads(concurrency, "user-api")
        self._lock = threading.Lock()
        self._calls: OrderedDict[str, _Call] = OrderedDict()

    def request(self, user_id: str, now_ms: int = 0) -> int:
        """Start a fetch unless one is under way or its answer waits to be taken; the ``now_ms`` it was asked with."""
        with self._lock:
            return self._call(user_id, now_ms).asked_ms

    def poll(self, user_ids: Iterable[str], now_ms: int = 0) -> list[tuple[str, FetchedUser]]:
        """The answers that have come, each once; whoever is not being asked for is from now on, as of ``now_ms``."""
        answers = []
        with self._lock:
            for user_id in user_ids:
                call = self._call(user_id, now_ms)
                if call.future.done():
                    del self._calls[user_id]
                    answers.append((user_id, call.future.result()[1]))
        return answers

    def wait(self, user_id: str) -> FetchedUser:
        """The answer, once, however long the API's own deadline lets it take; from here on it is the caller's alone."""
        with self._lock:
            call = self._call(user_id, 0)
            del self._calls[user_id]
        return call.future.result()[1]

    def cancel(self, user_id: str) -> None:
        """Forget the user: a fetch that has not begun never does, the answer of one under way is nobody's.

        The next ``request`` starts a new fetch, if need be beside the old one.
        """
        with self._lock:
            call = self._calls.pop(user_id, None)
        if call is not None:
            call.future.cancel()

    def withdraw(self, user_id: str) -> bool:
        """Do not begin a fetch that waits for its turn; whether none is under way now."""
        with self._lock:
            call = self._calls.get(user_id)
            if call is not None and not call.future.cancel():
                return False
            self._calls.pop(user_id, None)
            return True

    def _call(self, user_id: str, now_ms: int) -> _Call:
        """The user's, started if there is none; with the lock held."""
        call = self._calls.get(user_id)
        if call is None or (call.future.done() and self._is_old(call.future.result()[0])):
            self._calls.pop(user_id, None)
            self._drop_untaken()
            call = self._calls[user_id] = _Call(self._threads.submit(self._fetch, user_id), now_ms)
        return call

    def _drop_untaken(self) -> None:
        while self._calls:
            user_id, eldest = next(iter(self._calls.items()))
            if not eldest.future.done():
                return
            if len(self._calls) < self._KEPT_ANSWERS and not self._is_old(eldest.future.result()[0]):
                return
            del self._calls[user_id]

    def _is_old(self, finished_s: float) -> bool:
        return time.monotonic() > finished_s + self._KEPT_S

    def _fetch(self, user_id: str) -> _Fetched:
        try:
            fetched = self._api.fetch(user_id)
        except Exception as error:  # noqa: BLE001 - whatever an API client raises must not park its user for ever
            fetched = unavailable(OTHER, f"{type(error).__name__}: {error}")
        return time.monotonic(), fetched


_pools: dict[Any, FetchPool] = {}
_pools_lock = threading.Lock()


def shared_pool(key: Any, make: Callable[[], FetchPool]) -> FetchPool:
    """The process's one pool for ``key``: DoFn instances come and go, and single-flight must hold across them."""
    with _pools_lock:
        if key not in _pools:
            _pools[key] = make()
        return _pools[key]
