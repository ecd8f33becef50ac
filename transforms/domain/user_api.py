"""What the user API knows of a user, over HTTP.

``GET {base}/users/{id}/profile``, ``/visit`` and ``/history`` (spec/architecture.md, "Event Processing Pipeline").
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from transforms.domain.breaker import Breaker, Permit
from transforms.domain.calls import Backoff, CallError, HttpClient
from transforms.domain.events import MAX_DEPTH, MAX_SAFE_INTEGER, nested_deeper
from transforms.domain.history import Row
from transforms.domain.profiles import BAD_ANSWER, BREAKER_OPEN, NOTHING_KNOWN, TIMEOUT, FetchedUser, unavailable
from transforms.domain.tokens import Token
from transforms.domain.users import FETCHED, Visit

PROFILE: Final = "profile"
VISIT: Final = "visit"
HISTORY: Final = "history"


@dataclass(frozen=True, slots=True)
class UserApiSettings:
    """How the user API is asked; no ``base_url`` means that there is none and every user is unknown.

    ``token`` is a reference (``domain.tokens``); ``concurrency`` counts calls, ``max_answer_bytes`` holds for each.
    """

    base_url: str | None = None
    call_timeout_s: float = 2.0
    concurrency: int = 32
    token: str | None = None
    max_answer_bytes: int = 1_000_000


class HttpUserApi:
    """Three calls a user, side by side, tried again until ``deadline_s`` has passed since the first.

    However many fetches there are, ``concurrency`` calls are on their way; pauses between tries do not count. While the
    API is down, its breaker lets through a single call now and then.
    """

    def __init__(
        self,
        settings: UserApiSettings,
        deadline_s: float,
        history_fields: tuple[str, ...] = (),
        *,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._base_url = (settings.base_url or "").rstrip("/")
        self._call_timeout_s = settings.call_timeout_s
        self._deadline_s = deadline_s
        self._history_fields = history_fields
        self._token = None if settings.token is None else Token(settings.token)
        self._client = HttpClient(settings.concurrency, settings.max_answer_bytes, clock)
        self._executor = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="user-api-call")
        self._breaker = breaker or Breaker()
        self._backoff = Backoff()
        self._clock, self._sleep, self._chance = clock, sleep, chance

    def fetch(self, user_id: str) -> FetchedUser:
        """Profile, visit and history; 404 on the profile is an unknown user, an error after retries unavailable."""
        if user_id in (".", ".."):
            return NOTHING_KNOWN  # in a URL these are no names: the call would ask for something else
        permit = self._breaker.enter()
        if permit is None:
            return unavailable(BREAKER_OPEN, "breaker open")
        healthy = False
        try:
            fetched = self._fetch(user_id, permit)
            healthy = True
        except CallError as error:
            healthy = not error.down
            fetched = unavailable(error.kind, str(error))
        finally:
            self._breaker.leave(permit, healthy)
        return fetched

    def _fetch(self, user_id: str, permit: Permit) -> FetchedUser:
        fetch = _Fetch(user_id, self._clock() + self._deadline_s, retries=permit is Permit.NORMAL)
        answers: dict[str, Any] = {}
        # A probe is one call for as long as that fails, and asks for the rest only then.
        for batch in ((PROFILE, VISIT, HISTORY),) if fetch.retries else ((PROFILE,), (VISIT, HISTORY)):
            answers |= self._ask(fetch, batch)
            if answers[PROFILE] is None:
                return NOTHING_KNOWN
        if not isinstance(answers[PROFILE], dict):
            raise _bad(PROFILE, f"a JSON {type(answers[PROFILE]).__name__}, allowed is an object")
        history = _history(answers[HISTORY], self._history_fields)
        return FetchedUser(FETCHED, orjson.dumps(answers[PROFILE]), _visit(answers[VISIT]), history)

    def _ask(self, fetch: _Fetch, names: tuple[str, ...]) -> dict[str, Any]:
        """Answers by name; of an unknown user perhaps only the profile's. Waits here, so that no call's thread does."""
        answers: dict[str, Any] = {}
        failure: CallError | None = None
        due_s = dict.fromkeys(names, self._clock())
        running: dict[Future[Any], str] = {}
        try:
            while due_s or running:
                for name in [name for name, at_s in due_s.items() if at_s <= self._clock()]:
                    del due_s[name]
                    running[self._executor.submit(self._call, fetch, name)] = name
                for future in self._wait(fetch, running, due_s):
                    name = running.pop(future)
                    try:
                        answers[name] = future.result()
                    except CallError as error:
                        next_s = self._next_try_s(fetch, name, error)
                        if next_s is None:
                            failure = fetch.fail(failure or error)
                        else:
                            due_s[name] = next_s
                if PROFILE in answers and answers[PROFILE] is None:
                    break
                # Of a user the API does not know it may say anything but a profile: wait for that.
                if failure is not None and PROFILE not in {*due_s, *running.values()}:
                    raise failure
        finally:
            for future in running:
                future.cancel()
        return answers

    def _wait(self, fetch: _Fetch, running: dict[Future[Any], str], due_s: dict[str, float]) -> set[Future[Any]]:
        pause_s = min([fetch.ends_s, *due_s.values()]) - self._clock()
        if not running:
            self._sleep(max(0.0, pause_s))
            return set()
        done = wait(running, max(0.0, pause_s), FIRST_COMPLETED).done
        if not done and self._clock() >= fetch.ends_s:
            name = next(iter(running.values()))
            raise fetch.error or CallError(TIMEOUT, f"{name}: no answer within {self._deadline_s} s", down=True)
        return done

    def _next_try_s(self, fetch: _Fetch, name: str, error: CallError) -> float | None:
        """When to try again; None if there is no use in that."""
        if fetch.error is not None and self._clock() >= fetch.ends_s:
            raise fetch.error  # what went wrong says more than that time is up
        fetch.error = error
        fetch.failed[name] += 1
        next_s = self._clock() + self._backoff.pause_s(fetch.failed[name], error.retry_after_s, self._chance())
        if not error.passing or not fetch.retries or next_s >= fetch.ends_s or self._breaker.is_open:
            return None
        return next_s

    def _call(self, fetch: _Fetch, name: str) -> Any:
        """In a thread of the pool: one call, or two when the first says that the token has been replaced."""
        url = f"{self._base_url}/users/{quote(fetch.user_id, safe='')}/{name}"
        ends_s = min(self._clock() + self._call_timeout_s, fetch.ends_s)
        try:
            if self._token is None:
                return _json(name, self._client.get(url, {}, ends_s))
            used = self._token.value
            try:
                return _json(name, self._client.get(url, _bearer(used), ends_s))
            except CallError as error:
                if error.status != 401 or self._token.reread() == used:
                    raise
            return _json(name, self._client.get(url, _bearer(self._token.value), ends_s))
        except CallError as error:
            error.args = (f"{name}: {error}",)
            raise


class _Fetch:
    def __init__(self, user_id: str, ends_s: float, retries: bool) -> None:
        self.user_id = user_id
        self.ends_s = ends_s
        self.retries = retries
        self.failed: Counter[str] = Counter()  # tries, by call
        self.error: CallError | None = None  # of the last of them

    def fail(self, error: CallError) -> CallError:
        """Nothing is tried again after this error, which is handed back."""
        self.retries = False
        return error


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _bad(name: str, reason: str) -> CallError:
    return CallError(BAD_ANSWER, f"{name}: {reason}")


def _json(name: str, content: bytes | None) -> Any:
    if content is None:
        return None
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise CallError(BAD_ANSWER, f"not JSON: {error}") from None
    if nested_deeper(answer, MAX_DEPTH):
        raise CallError(BAD_ANSWER, f"nested deeper than {MAX_DEPTH} levels")
    return answer


def _integer(value: Any) -> int:
    number = int(value)
    if abs(number) > MAX_SAFE_INTEGER:
        raise ValueError("beyond 2**53")
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
    except (TypeError, LookupError, ValueError, OverflowError) as error:
        raise _bad(VISIT, f"{type(error).__name__} {error}") from None


def _history(answer: Any, fields: tuple[str, ...]) -> list[Row]:
    if answer is None:
        return []
    if not isinstance(answer, list):
        raise _bad(HISTORY, f"a JSON {type(answer).__name__}, allowed is an array")
    try:
        return [
            Row(
                _integer(event["timestamp"]),
                str(event["event_id"]),
                str(event["event_name"]),
                {name: event[name] for name in fields if name in event} or None,
                from_api=True,
            )
            for event in answer
        ]
    except (TypeError, LookupError, ValueError, OverflowError) as error:
        raise _bad(HISTORY, f"{type(error).__name__} {error}") from None
