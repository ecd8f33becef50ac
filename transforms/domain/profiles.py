"""Fetching what the user API knows of a user, away from the event path. How it is asked: ``domain.user_api``."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

from transforms.domain.history import Row
from transforms.domain.users import UNAVAILABLE, UNKNOWN, Visit

# Kinds of errors, why a user is unavailable; each has a counter of its own.
TIMEOUT: Final = "timeout"
CONNECTION: Final = "connection"
STATUS: Final = "status"
BREAKER_OPEN: Final = "breaker_open"
TOO_LARGE: Final = "too_large"
BAD_ANSWER: Final = "bad_answer"
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

    # Answers nobody takes (their shard moved, their user was forgotten) go when newer ones come, or are too old to use.
    _KEPT_ANSWERS: Final = 10_000
    _KEPT_S: Final = 60.0

    def __init__(self, api: UserApi, concurrency: int) -> None:
        self._api = api
        self._executor = ThreadPoolExecutor(concurrency, thread_name_prefix="user-api")
        self._lock = threading.Lock()
        self._calls: OrderedDict[str, _Call] = OrderedDict()

    def request(self, user_id: str, now_ms: int = 0) -> int:
        """Start a fetch unless one is under way or its answer waits to be taken; the ``now_ms`` it was asked with."""
        with self._lock:
            call = self._calls.get(user_id)
            if call is not None and call.future.done() and self._is_old(call.future.result()[0]):
                del self._calls[user_id]
                call = None
            if call is None:
                call = self._calls[user_id] = _Call(self._executor.submit(self._fetch, user_id), now_ms)
                while len(self._calls) > self._KEPT_ANSWERS and next(iter(self._calls.values())).future.done():
                    self._calls.popitem(last=False)
            return call.asked_ms

    def take(self, user_id: str) -> FetchedUser | None:
        """The answer, once; None while there is none yet."""
        with self._lock:
            call = self._calls.get(user_id)
            if call is None or not call.future.done():
                return None
            del self._calls[user_id]
        finished_s, fetched = call.future.result()
        return None if self._is_old(finished_s) else fetched

    def wait(self, user_id: str) -> FetchedUser:
        """The answer, once, however long the API's own deadline lets it take."""
        self.request(user_id)
        with self._lock:
            call = self._calls.pop(user_id)
        return call.future.result()[1]

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
