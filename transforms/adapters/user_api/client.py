"""The user API over HTTP: profile, visit and history of a user.

``GET {base}/users/{id}/profile``, ``/visit`` and ``/history`` (docs/spec/architecture.md, "Event Processing Pipeline").
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote

import msgspec
import orjson

from transforms.adapters.http.breaker import Breaker
from transforms.adapters.http.calls import CallError
from transforms.adapters.http.client import HttpClient
from transforms.adapters.secrets import Token
from transforms.adapters.telemetry.metrics import USER_API_BREAKER, USER_API_CALL, WorkerMetrics
from transforms.adapters.threads import DaemonThreads
from transforms.domain.base import exact_json
from transforms.domain.base.backoff import Backoff
from transforms.domain.base.field_paths import selection
from transforms.domain.events.event import MAX_DEPTH, MAX_SAFE_INTEGER, nested_deeper
from transforms.domain.users import fetched_user as error_kinds
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser, unavailable
from transforms.domain.users.history import Row
from transforms.domain.users.user import FETCHED
from transforms.domain.users.visit import Visit

_T = TypeVar("_T")

PROFILE: Final = "profile"
VISIT: Final = "visit"
HISTORY: Final = "history"

# How often a fetch that pauses checks whether the breaker has opened.
_CHECK_BREAKER_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class UserApiSettings:
    """How the user API is called.

    Attributes:
        base_url: None if there is no user API; then every user is unknown.
        call_timeout_s: the time of one call.
        concurrency: the number of calls in flight.
        token: a secret's reference (``domain.base.secret_references``).
        max_answer_bytes: the size of one answer.
        ca_file: the CAs (PEM) to trust instead of the public ones.
    """

    base_url: str | None = None
    call_timeout_s: float = 2.0
    concurrency: int = 32
    token: str | None = None
    max_answer_bytes: int = 1_000_000
    ca_file: str | None = None


class HttpUserApi:
    """Makes three calls for each user in parallel, and repeats those that fail until ``deadline_s`` is over.

    All fetches together have at most ``concurrency`` calls in flight; a pause between attempts does not count. While
    the breaker is open no fetch repeats a call, and a single probe now and then finds out whether the API is back.

    Raises:
        TokenError: the token cannot be read.
        CaFileError: the CA file cannot be used.
    """

    def __init__(
        self,
        settings: UserApiSettings,
        deadline_s: float,
        history_fields: tuple[str, ...] = (),
        *,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] | None = None,
        chance: Callable[[], float] = random.random,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._metrics = metrics or WorkerMetrics()
        self._base_url = (settings.base_url or "").rstrip("/")
        self._call_timeout_s = settings.call_timeout_s
        self._deadline_s = deadline_s
        self._history_fields = history_fields
        self._token = None if settings.token is None else Token(settings.token)
        self._token_reader = DaemonThreads(1, "user-api-token")
        self._client = HttpClient(settings.max_answer_bytes, settings.ca_file, clock, name="user-api-calls")
        self._slots = asyncio.Semaphore(settings.concurrency)
        # Calls whose fetch is over: the event loop itself keeps only weak references to tasks.
        self._orphans: set[asyncio.Task[Any]] = set()
        self._breaker = breaker or Breaker()
        self._backoff = Backoff()
        self._clock, self._chance = clock, chance
        self._sleep = sleep or self._sleep_until_open

    def fetch(self, user_id: str) -> FetchedUser:
        """Fetch one user; blocks for at most ``deadline_s``.

        Returns:
            The user; unknown if the profile is 404, unavailable with the kind of the error if attempts fail.
        """
        if user_id in (".", ".."):
            return NOTHING_KNOWN  # in a URL these are path steps, not names
        if not self._breaker.allows():
            return unavailable(error_kinds.BREAKER_OPEN, "breaker open")
        try:
            return self._client.start(self._fetch(_Fetch(user_id, self._clock() + self._deadline_s))).result()
        except CallError as error:
            return unavailable(error.kind, str(error))

    # In the client's thread

    async def _fetch(self, fetch: _Fetch) -> FetchedUser:
        answers: dict[str, Any] = {}
        # While the breaker is open the fetch is a probe: a single call, and the others only after its success.
        for batch in ((PROFILE,), (VISIT, HISTORY)) if self._breaker.is_open else ((PROFILE, VISIT, HISTORY),):
            answers |= await self._ask(fetch, batch)
            if answers[PROFILE] is None:
                return NOTHING_KNOWN
        return fetched_user(answers, self._history_fields)

    async def _ask(self, fetch: _Fetch, names: tuple[str, ...]) -> dict[str, Any]:
        """Answers by name; of an unknown user perhaps only the profile's. A pause here holds no slot of a call."""
        answers: dict[str, Any] = {}
        failure: CallError | None = None
        running: dict[asyncio.Task[Any], str] = {}
        due_s = dict.fromkeys(names, self._clock())
        try:
            while due_s or running:
                for name in [name for name, at_s in due_s.items() if at_s <= self._clock()]:
                    del due_s[name]
                    running[asyncio.create_task(self._call(fetch, name))] = name
                for call in await self._wait(fetch, running, due_s):
                    name = running.pop(call)
                    try:
                        answers[name] = call.result()
                    except CallError as error:
                        next_s = self._next_try_s(fetch, name, error)
                        if next_s is None or failure is not None:
                            failure = failure or error
                        else:
                            due_s[name] = next_s
                if PROFILE in answers and answers[PROFILE] is None:
                    break
                if due_s and self._breaker.is_open:
                    failure, due_s = failure or fetch.error, {}
                # For an unknown user the API may fail at everything but the profile: wait for that answer.
                if failure is not None and PROFILE not in {*due_s, *running.values()}:
                    raise failure
        finally:
            fetch.over = bool(running)
            for call in running:
                self._orphans.add(call)
                call.add_done_callback(self._forget)
        return answers

    def _forget(self, call: asyncio.Task[Any]) -> None:
        self._orphans.discard(call)
        if not call.cancelled():
            call.exception()  # otherwise asyncio logs it as never retrieved

    async def _wait(
        self, fetch: _Fetch, running: dict[asyncio.Task[Any], str], due_s: dict[str, float]
    ) -> set[asyncio.Task[Any]]:
        pause_s = min([fetch.ends_s, *due_s.values()]) - self._clock()
        if not running:
            await self._sleep(max(0.0, pause_s))
            return set()
        done, _ = await asyncio.wait(running, timeout=max(0.0, pause_s), return_when=asyncio.FIRST_COMPLETED)
        if not done and self._clock() >= fetch.ends_s:
            name = next(iter(running.values()))
            raise fetch.error or CallError(error_kinds.TIMEOUT, f"{name}: no answer within {self._deadline_s} s")
        return done

    def _next_try_s(self, fetch: _Fetch, name: str, error: CallError) -> float | None:
        """When to repeat the call, on the client's clock; None if that cannot help."""
        if fetch.error is not None and self._clock() >= fetch.ends_s:
            raise fetch.error  # it says more than a timeout
        fetch.error = error
        fetch.failed[name] += 1
        next_s = self._clock() + self._backoff.pause_s(fetch.failed[name], error.retry_after_s, self._chance())
        return next_s if error.passing and next_s < fetch.ends_s else None

    async def _sleep_until_open(self, pause_s: float) -> None:
        """Sleep, but not on when the breaker opens."""
        until_s = self._clock() + pause_s
        while not self._breaker.is_open and (remaining_s := until_s - self._clock()) > 0:
            await asyncio.sleep(min(remaining_s, _CHECK_BREAKER_EVERY_S))

    async def _call(self, fetch: _Fetch, name: str) -> Any:
        """One call when a slot is free and the breaker lets it through; None if the fetch is over by then."""
        async with self._slots:
            if fetch.over:
                return None
            content = await self._permitted(fetch, name)
        return _json(name, content)

    async def _permitted(self, fetch: _Fetch, name: str) -> bytes | None:
        ends_s = min(self._clock() + self._call_timeout_s, fetch.ends_s)
        permit = self._breaker.enter()
        if permit is None:
            raise CallError(error_kinds.BREAKER_OPEN, "breaker open")
        healthy, began_s = False, self._clock()
        try:
            content = await self._get(f"{self._base_url}/users/{quote(fetch.user_id, safe='')}/{name}", ends_s)
            healthy = True
            return content
        except CallError as error:
            healthy = not error.down
            self._metrics.count("user_api_call_errors")
            error.args = (f"{name}: {error}",)
            raise
        finally:
            self._breaker.leave(permit, healthy)
            self._metrics.count("user_api_calls")
            self._metrics.set(USER_API_BREAKER, int(self._breaker.is_open))
            self._metrics.observe(USER_API_CALL, (round((self._clock() - began_s) * 1000),))

    async def _get(self, url: str, ends_s: float) -> bytes | None:
        """One GET, or two when the first says that the token has been replaced."""
        if self._token is None:
            return await self._client.get(url, {}, ends_s)
        used = self._token.value
        try:
            return await self._client.get(url, _bearer(used), ends_s)
        except CallError as error:
            if error.status != 401:
                raise
            # Reading the token may block for as long as a file system or another service does.
            if await asyncio.wrap_future(self._token_reader.submit(self._token.reread)) == used:
                raise
        return await self._client.get(url, _bearer(self._token.value), ends_s)


def fetched_user(answers: dict[str, Any], history_fields: tuple[str, ...]) -> FetchedUser:
    """Make a user of the answers.

    Args:
        answers: JSON values by the name of the call; ``VISIT`` and ``HISTORY`` may be None or missing.
        history_fields: the fields of past events that are kept.

    Raises:
        CallError: a value has another type or a field is missing.
    """
    if not isinstance(answers[PROFILE], dict):
        raise _bad(PROFILE, f"a JSON {type(answers[PROFILE]).__name__}, allowed is an object")
    history = _history(answers.get(HISTORY), history_fields)
    # Copied because orjson's buffers have up to four times the size of the result, and this one is kept.
    profile_json = bytes(memoryview(exact_json.dumps(answers[PROFILE])))
    return FetchedUser(FETCHED, profile_json, _visit(answers.get(VISIT)), history)


class _Fetch:
    def __init__(self, user_id: str, ends_s: float) -> None:
        self.user_id = user_id
        self.ends_s = ends_s
        self.failed: Counter[str] = Counter()  # failed attempts by call
        self.error: CallError | None = None  # of the last failed attempt
        self.over = False  # calls that have not started never do


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _bad(name: str, reason: str) -> CallError:
    return CallError(error_kinds.BAD_ANSWER, f"{name}: {reason}")


def _json(name: str, content: bytes | None) -> Any:
    if content is None:
        return None
    try:
        answer = exact_json.loads(content)
    except orjson.JSONDecodeError as error:
        raise _bad(name, f"not JSON: {error}") from None
    if nested_deeper(answer, MAX_DEPTH):
        raise _bad(name, f"nested deeper than {MAX_DEPTH} levels")
    return answer


_Integer = Annotated[int, msgspec.Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]


class _VisitAnswer(msgspec.Struct):
    visit_id: str
    start_time: _Integer
    page_count: _Integer
    is_first_visit: bool


class _PastEvent(msgspec.Struct):
    event_id: str
    event_name: str
    timestamp: _Integer


def _visit(answer: Any) -> Visit | None:
    if answer is None:
        return None
    visit = _checked(VISIT, answer, _VisitAnswer)
    return Visit(visit.visit_id, visit.start_time, visit.page_count, visit.is_first_visit)


def _history(answer: Any, fields: tuple[str, ...]) -> list[Row]:
    if answer is None:
        return []
    selected = selection(fields)
    return [
        Row(
            past.timestamp,
            past.event_id,
            past.event_name,
            selected.of(event) or None,
            from_api=True,
        )
        for past, event in zip(_checked(HISTORY, answer, list[_PastEvent]), answer, strict=True)
    ]


def _checked(name: str, answer: Any, shape: type[_T]) -> _T:
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError:
        pass
    try:
        return msgspec.convert(_with_whole_numbers(answer), shape)
    except msgspec.ValidationError as error:
        raise _bad(name, str(error)) from None


def _with_whole_numbers(value: Any) -> Any:
    """A JSON value with 5 in place of 5.0."""
    if type(value) is dict:
        return {name: _with_whole_numbers(inner) for name, inner in value.items()}
    if type(value) is list:
        return [_with_whole_numbers(inner) for inner in value]
    is_whole = type(value) is float and value.is_integer() and abs(value) <= MAX_SAFE_INTEGER
    return int(value) if is_whole else value
