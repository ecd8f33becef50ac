"""The user API over HTTP: profile, visit and history of a user.

``GET {base}/users/{id}/profile``, ``/visit`` and ``/history`` (docs/spec/architecture.md, "Event Processing Pipeline"),
or ``GET {base}/users/{id}`` for all three.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from transforms.adapters.http.breaker import Breaker, Permit
from transforms.adapters.http.calls import CallError, retry_after_s
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.http.transport import Ending, Request, Response, Rules, Transport
from transforms.adapters.secrets import Token
from transforms.adapters.telemetry.metrics import USER_API_BREAKER, USER_API_CALL, WorkerMetrics
from transforms.adapters.threads import DaemonThreads
from transforms.adapters.user_api.answers import HISTORY, PROFILE, USER, VISIT
from transforms.adapters.user_api.fetch import Fetch
from transforms.domain.base.backoff import Backoff
from transforms.domain.users.fetched_user import (
    BAD_ANSWER,
    BREAKER_OPEN,
    NOTHING_KNOWN,
    OTHER,
    STATUS,
    TIMEOUT,
    FetchedUser,
    unavailable,
)

# While the breaker's pause is at most this long, fetches wait for its end; later they fail at once.
_OUTWAITED_PAUSE_S: Final = 2.0
_HEADERS: Final = ("Accept: application/json", "Accept-Encoding: gzip")

THREE: Final = "three"
ONE: Final = "one"


@dataclass(frozen=True, slots=True)
class UserApiSettings:
    """How the user API is called.

    Attributes:
        base_url: None if there is no user API; then every user is unknown.
        call_timeout_s: the time of one call.
        concurrency: the number of users whose calls are in flight.
        token: a secret's reference (``domain.base.secret_references``).
        max_answer_bytes: the size of one answer.
        ca_file: the CAs (PEM) to trust instead of the public ones.
        layout: ``three`` documents a user, or ``one``.
    """

    base_url: str | None = None
    call_timeout_s: float = 2.0
    concurrency: int = 128
    token: str | None = None
    max_answer_bytes: int = 1_000_000
    ca_file: str | None = None
    layout: str = THREE


class HttpUserApi:
    """Makes the calls for each user in parallel, and repeats those that fail until ``deadline_s`` is over.

    At most ``concurrency`` users have calls in flight; a pause between attempts does not count. While the breaker is
    open a single call now and then finds out whether the API is back. Fetches outwait its first, short pauses.

    Raises:
        TokenError: the token cannot be read.
        CaFileError: the CA file cannot be used.
    """

    def __init__(
        self,
        settings: UserApiSettings,
        deadline_s: float,
        history_fields: Sequence[str] = (),
        *,
        io: IoThread | None = None,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._metrics = metrics or WorkerMetrics()
        self._base_url = (settings.base_url or "").rstrip("/")
        self._names = (USER,) if settings.layout == ONE else (PROFILE, VISIT, HISTORY)
        self._call_timeout_s = settings.call_timeout_s
        self._deadline_s = deadline_s
        self._history_fields = history_fields
        self._token = None if settings.token is None else Token(settings.token)
        self._token_reader = DaemonThreads(1, "user-api-token")
        self._io = io or IoThread("user-api")
        self._transport = Transport(
            self._io,
            Rules(settings.max_answer_bytes),
            settings.ca_file,
            kept_connections=len(self._names) * settings.concurrency,
        )
        self._breaker = breaker or Breaker()
        self._backoff = Backoff()
        self._clock, self._chance = clock, chance
        # Only used in the I/O thread:
        self._room = settings.concurrency
        self._ready: deque[Fetch] = deque()  # wait for room
        self._blocked: dict[Fetch, None] = {}  # wait for the breaker, in this order
        self._probe_timer: asyncio.TimerHandle | None = None

    def fetch(self, user_id: str) -> FetchedUser:
        """Fetch one user; blocks for at most ``deadline_s``.

        Returns:
            The user; unknown if the profile is 404, unavailable with the kind of the error if attempts fail.
        """
        return self.start(user_id).result()

    def start(self, user_id: str) -> Future[FetchedUser]:
        """Start a fetch, of which ``fetch`` says what comes; it can be cancelled until its first call begins."""
        now_s = self._clock()
        fetch = Fetch(user_id, self._names, now_s, now_s + self._deadline_s)
        if user_id in (".", ".."):
            fetch.future.set_result(NOTHING_KNOWN)  # in a URL these are path steps, not names
        else:
            self._io.submit(self._begin, fetch)
        return fetch.future

    # In the I/O thread

    def _begin(self, fetch: Fetch) -> None:
        fetch.deadline = self._io.later(fetch.ends_s - self._clock(), self._end_late, fetch)
        self._resume(fetch)

    def _resume(self, fetch: Fetch) -> None:
        """Start the calls that are due, when there is room."""
        if fetch.running:
            self._start_calls(fetch)
        elif not self._breaker.allows():
            self._block(fetch)
        else:
            self._ready.append(fetch)
            self._serve()

    def _serve(self) -> None:
        while self._ready and self._room > 0:
            self._start_calls(self._ready.popleft())

    def _start_calls(self, fetch: Fetch) -> None:
        if fetch.is_over or not fetch.claim():
            self._release(fetch)
            return
        now_s, was_idle = self._clock(), not fetch.running
        for name in [name for name, at_s in fetch.due_s.items() if at_s <= now_s]:
            permit = self._breaker.enter()
            if permit is None:
                break
            fetch.begin(name)
            self._start_call(_Call(fetch, name, permit, now_s))
            if permit is Permit.PROBE:
                break  # a single call shows whether the API is back
        if not fetch.running:
            self._block(fetch)
        elif was_idle:
            self._room -= 1

    def _advance(self, fetch: Fetch) -> None:
        """Go on after a call has ended."""
        result = fetch.result(tuple(self._history_fields))
        if result is not None:
            self._finish(fetch, result)
        elif fetch.due_s:
            pause_s = min(fetch.due_s.values()) - self._clock()
            if fetch.pause is not None:
                fetch.pause.cancel()
            if pause_s > 0:
                fetch.pause = self._io.later(pause_s, self._resume, fetch)
            else:
                self._resume(fetch)

    def _end_late(self, fetch: Fetch) -> None:
        """The deadline is over; calls in flight end by themselves."""
        name = next(iter((*fetch.running, *fetch.due_s)))
        error = fetch.error or CallError(TIMEOUT, f"{name}: no answer within {self._deadline_s} s")
        if fetch in self._blocked and fetch.error is None:
            error = _breaker_open()
        self._finish(fetch, unavailable(error.kind, str(error)))

    def _finish(self, fetch: Fetch, result: FetchedUser) -> None:
        if result.problems:
            self._metrics.count("user_api_incomplete_users")
        if fetch.claim():
            fetch.future.set_result(result)
        self._release(fetch)

    def _release(self, fetch: Fetch) -> None:
        fetch.is_over = True
        for timer in (fetch.deadline, fetch.pause):
            if timer is not None:
                timer.cancel()

    # The breaker

    def _block(self, fetch: Fetch) -> None:
        """Wait until the breaker lets a call through, unless that takes long."""
        if self._breaker.pause_s > _OUTWAITED_PAUSE_S:
            error = fetch.error or _breaker_open()
            self._finish(fetch, unavailable(error.kind, str(error)))
            return
        self._blocked[fetch] = None
        self._watch_breaker()

    def _watch_breaker(self) -> None:
        """Let blocked fetches go on when the breaker closes, or lets a probe through."""
        if not self._blocked or self._probe_timer is not None:
            return
        pause_s = self._breaker.probe_in_s()
        if not self._breaker.is_open or self._breaker.pause_s > _OUTWAITED_PAUSE_S:
            self._unblock()
        elif pause_s > 0:  # otherwise a probe is in flight, whose end comes here
            self._probe_timer = self._io.later(pause_s, self._unblock)

    def _unblock(self) -> None:
        self._probe_timer = None
        blocked, self._blocked = self._blocked, {}
        for fetch in blocked:
            if not fetch.is_over:
                self._resume(fetch)

    # Calls

    def _start_call(self, call: _Call) -> None:
        now_s = self._clock()
        ends_s = min(call.began_s + self._call_timeout_s, call.fetch.ends_s)
        if ends_s <= now_s:
            self._end_call(call, CallError(TIMEOUT, "no time left", passing=True, down=True))
            return
        path = "" if call.name == USER else f"/{call.name}"
        url = f"{self._base_url}/users/{quote(call.fetch.user_id, safe='')}{path}"
        headers = list(_HEADERS)
        if self._token is not None:
            call.token = self._token.value
            headers.append(f"Authorization: Bearer {call.token}")
        # Kept connections may all be dead, as the one was that cost an attempt.
        fresh = call.permit is Permit.PROBE or call.fetch.failures[call.name] > 0
        request = Request(url, headers, ends_s - now_s, fresh=fresh)
        self._transport.start(request, lambda ending: self._on_ending(call, ending))

    def _on_ending(self, call: _Call, ending: Ending) -> None:
        refused = isinstance(ending, Response) and ending.status == 401
        if refused and self._token is not None and not call.is_second:
            # Reading the token may block for as long as a file system or another service does.
            reading = self._token_reader.submit(self._token.reread)
            reading.add_done_callback(lambda done: self._io.submit(self._on_token, call, done, ending))
            return
        self._end_call(call, ending)

    def _on_token(self, call: _Call, reading: Future[str], ending: Ending) -> None:
        """Make the call once more if the token has been replaced."""
        if reading.exception() is not None or reading.result() == call.token:
            self._end_call(call, ending)
            return
        call.is_second = True
        self._start_call(call)

    def _end_call(self, call: _Call, ending: Ending) -> None:
        fetch, now_s = call.fetch, self._clock()
        answer = _body_of(ending)
        if isinstance(answer, CallError):
            self._metrics.count("user_api_call_errors")
            answer.args = (f"{call.name}: {answer}",)
            fetch.failed(call.name, answer, now_s, self._backoff, self._chance())
        else:
            fetch.answered(call.name, answer)
        self._breaker.leave(call.permit, not (isinstance(answer, CallError) and answer.down))
        self._metrics.count("user_api_calls")
        self._metrics.set(USER_API_BREAKER, int(self._breaker.is_open))
        self._metrics.observe(USER_API_CALL, (round((now_s - call.began_s) * 1000),))
        if not fetch.running:
            self._room += 1
        if not fetch.is_over:
            self._advance(fetch)
        self._watch_breaker()
        self._serve()


@dataclass(slots=True)
class _Call:
    fetch: Fetch
    name: str
    permit: Permit
    began_s: float
    token: str | None = None
    is_second: bool = False  # the token was read again


def _breaker_open() -> CallError:
    return CallError(BREAKER_OPEN, "breaker open")


def _body_of(ending: Ending) -> bytes | CallError | None:
    """The body of a 200 or 203; None for 204 and 404; otherwise the error."""
    if not isinstance(ending, Response):
        return ending if isinstance(ending, CallError) else CallError(OTHER, str(ending))
    status = ending.status
    if status in (200, 203):
        return ending.body
    if status in (204, 404):
        return None
    if status >= 600:
        return CallError(BAD_ANSWER, f"HTTP {status}: no such status", status=status)
    passing = status in (408, 425, 429) or 500 <= status < 600
    after_s = retry_after_s(ending.retry_after, time.time()) if passing else None
    return CallError(
        STATUS,
        f"HTTP {status}",
        passing=passing,
        # A 429 without Retry-After means that no call gets through: the server counts as down.
        down=500 <= status < 600 or (status == 429 and after_s is None),
        status=status,
        retry_after_s=after_s,
    )
