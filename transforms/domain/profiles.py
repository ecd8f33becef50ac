"""Fetching what the user API knows of a user, away from the event path.

``GET {base}/users/{id}/profile``, ``/visit`` and ``/history`` (spec/architecture.md, "Event Processing Pipeline").
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

import orjson
import requests

from transforms.domain.events import MAX_DEPTH, MAX_SAFE_INTEGER, nested_deeper
from transforms.domain.history import Row
from transforms.domain.users import FETCHED, UNAVAILABLE, UNKNOWN, Visit

_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class FetchedUser:
    """The user API's answer; ``enrichment`` is one of ``users``' constants, ``error`` says why it is unavailable."""

    enrichment: str
    profile_json: bytes
    visit: Visit | None
    history: list[Row]
    error: str | None = None


NOTHING_KNOWN: Final = FetchedUser(UNKNOWN, b"{}", None, [])


def unavailable(error: str) -> FetchedUser:
    """The answer in place of one that did not come."""
    return FetchedUser(UNAVAILABLE, b"{}", None, [], error)


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


class BadAnswerError(ValueError):
    """The user API answered something that is no profile, visit or history."""


class HttpUserApi:
    """The user API over HTTP: three calls a user, retried until ``deadline_s`` has passed since the first."""

    def __init__(
        self, base_url: str, call_timeout_s: float, deadline_s: float, pool_size: int, history_fields: tuple[str, ...]
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._call_timeout_s = call_timeout_s
        self._deadline_s = deadline_s
        self._history_fields = history_fields
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=pool_size)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def fetch(self, user_id: str) -> FetchedUser:
        """Profile, visit and history; 404 on the profile is an unknown user, an error after retries unavailable."""
        if user_id in (".", ".."):
            return NOTHING_KNOWN  # in a URL these are no names: the call would ask for something else
        give_up_at = time.monotonic() + self._deadline_s
        try:
            profile = self._get(user_id, "profile", give_up_at)
            if profile is None:
                return NOTHING_KNOWN
            if not isinstance(profile, dict):
                raise BadAnswerError(f"profile is a JSON {type(profile).__name__}, allowed is an object")
            visit = _visit(self._get(user_id, "visit", give_up_at))
            history = _history(self._get(user_id, "history", give_up_at), self._history_fields)
        except (requests.RequestException, BadAnswerError) as error:
            return unavailable(f"{type(error).__name__}: {error}")
        return FetchedUser(FETCHED, orjson.dumps(profile), visit, history)

    def _get(self, user_id: str, what: str, give_up_at: float) -> Any:
        url = f"{self._base_url}/users/{quote(user_id, safe='')}/{what}"
        pause_s = 0.05
        while True:
            remaining_s = give_up_at - time.monotonic()
            if remaining_s <= 0:
                raise requests.Timeout(f"{what}: no answer within {self._deadline_s} s")
            try:
                response = self._session.get(url, timeout=min(self._call_timeout_s, remaining_s), allow_redirects=False)
                if response.status_code == 404:
                    return None
                if response.status_code == 200:
                    return _json(what, response.content)
                if response.status_code not in _RETRIED:
                    raise BadAnswerError(f"{what}: HTTP {response.status_code}")
            except (requests.ConnectionError, requests.Timeout):
                pass  # tried again below, until the deadline
            time.sleep(min(pause_s, max(0.0, give_up_at - time.monotonic())))
            pause_s *= 2


def _json(what: str, content: bytes) -> Any:
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadAnswerError(f"{what}: {error}") from None
    if nested_deeper(answer, MAX_DEPTH):
        raise BadAnswerError(f"{what}: nested deeper than {MAX_DEPTH} levels")
    return answer


def _integer(value: Any) -> int:
    number = int(value)
    if abs(number) > MAX_SAFE_INTEGER:
        raise ValueError(f"{number} is beyond 2**53")
    return number


def _visit(answer: Any) -> Visit | None:
    if answer is None:
        return None
    try:
        return Visit(
            str(answer["visit_id"]),
            _integer(answer["start_time"]),
            _integer(answer["page_count"]),
            bool(answer["is_first_visit"]),
        )
    except (TypeError, KeyError, ValueError) as error:
        raise BadAnswerError(f"visit: {type(error).__name__} {error}") from None


def _history(answer: Any, fields: tuple[str, ...]) -> list[Row]:
    try:
        return [
            (
                _integer(event["timestamp"]),
                str(event["event_id"]),
                str(event["event_name"]),
                {name: event[name] for name in fields if name in event} or None,
            )
            for event in answer or []
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise BadAnswerError(f"history: {type(error).__name__} {error}") from None


_Fetched = tuple[float, FetchedUser]  # when it was, on the monotonic clock


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
        self._calls: OrderedDict[str, Future[_Fetched]] = OrderedDict()
        self._asked_ms: dict[str, int] = {}  # by the same users as _calls

    def request(self, user_id: str, now_ms: int = 0) -> int:
        """Start a fetch unless one is under way or its answer waits to be taken; the ``now_ms`` it was asked with."""
        with self._lock:
            call = self._calls.get(user_id)
            if call is not None and call.done() and time.monotonic() > call.result()[0] + self._KEPT_S:
                del self._calls[user_id]
            if user_id not in self._calls:
                self._calls[user_id] = self._executor.submit(self._fetch, user_id)
                self._asked_ms[user_id] = now_ms
                while len(self._calls) > self._KEPT_ANSWERS and next(iter(self._calls.values())).done():
                    del self._asked_ms[self._calls.popitem(last=False)[0]]
            return self._asked_ms.get(user_id, now_ms)

    def take(self, user_id: str) -> FetchedUser | None:
        """The answer, once; None while there is none yet."""
        with self._lock:
            call = self._calls.get(user_id)
            if call is None or not call.done():
                return None
            del self._calls[user_id], self._asked_ms[user_id]
        finished_s, fetched = call.result()
        return fetched if time.monotonic() <= finished_s + self._KEPT_S else None

    def wait(self, user_id: str) -> FetchedUser:
        """The answer, once, however long the API's own deadline lets it take."""
        self.request(user_id)
        with self._lock:
            call = self._calls.pop(user_id)
            del self._asked_ms[user_id]
        return call.result()[1]

    def _fetch(self, user_id: str) -> _Fetched:
        try:
            fetched = self._api.fetch(user_id)
        except Exception as error:  # noqa: BLE001 - whatever an API client raises must not park its user for ever
            fetched = unavailable(f"{type(error).__name__}: {error}")
        return time.monotonic(), fetched


_pools: dict[Any, FetchPool] = {}
_pools_lock = threading.Lock()


def shared_pool(key: Any, make: Callable[[], FetchPool]) -> FetchPool:
    """The process's one pool for ``key``: DoFn instances come and go, and single-flight must hold across them."""
    with _pools_lock:
        if key not in _pools:
            _pools[key] = make()
        return _pools[key]
