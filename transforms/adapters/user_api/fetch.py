"""The fetch of one user: which calls are due, and what came of them. No network, no clock."""

from __future__ import annotations

from asyncio import TimerHandle
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

from transforms.adapters.http.calls import CallError
from transforms.adapters.user_api.answers import PROFILE, fetched_user
from transforms.domain.base.backoff import Backoff
from transforms.domain.users.fetched_user import NOTHING_KNOWN, OTHER, FetchedUser, unavailable


class Fetch:
    """One user's calls; times are in seconds on the caller's clock.

    Attributes:
        future: gets the user.
        ends_s: the deadline.
        due_s: the calls that have to be made, by name, and when.
        running: the calls in flight.
        error: of the last failed attempt.
        failures: failed attempts by the name of the call.
        is_over: whether the future has its result; answers that come later do not count.
        deadline: the timer of the deadline.
        pause: the timer of the next attempt.
    """

    def __init__(self, user_id: str, names: Sequence[str], now_s: float, ends_s: float) -> None:
        self.user_id = user_id
        self.future: Future[FetchedUser] = Future()
        self.ends_s = ends_s
        self.due_s = dict.fromkeys(names, now_s)
        self.running: set[str] = set()
        self.error: CallError | None = None
        self.is_over = False
        self.deadline: TimerHandle | None = None
        self.pause: TimerHandle | None = None
        self._names = names
        self._answers: dict[str, bytes | None] = {}
        self.failures: Counter[str] = Counter()
        self._final: CallError | None = None  # of a call that no attempt helps

    def claim(self) -> bool:
        """Whether the fetch goes on: the caller may have cancelled the future before the first call."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def begin(self, name: str) -> None:
        """A call is in flight."""
        del self.due_s[name]
        self.running.add(name)

    def answered(self, name: str, body: bytes | None) -> None:
        """A call has its answer; None: the API knows nothing."""
        self.running.discard(name)
        self._answers[name] = body

    def failed(self, name: str, error: CallError, now_s: float, backoff: Backoff, chance: float) -> None:
        """A call has failed: it is due again after a pause, if that helps and time is left."""
        self.running.discard(name)
        self.error = error
        self.failures[name] += 1
        next_s = now_s + backoff.pause_s(self.failures[name], error.retry_after_s, chance)
        if error.passing and next_s < self.ends_s and self._final is None:
            self.due_s[name] = next_s
        else:
            self._final = self._final or error

    def result(self, history_fields: tuple[str, ...]) -> FetchedUser | None:
        """The user; None while an answer is missing that counts."""
        if PROFILE in self._answers and self._answers[PROFILE] is None:
            return NOTHING_KNOWN
        if self._final is not None:
            # The API may fail at everything but the profile of a user whom it does not know.
            is_open = PROFILE in self.due_s or PROFILE in self.running
            return None if is_open else unavailable(self._final.kind, str(self._final))
        if len(self._answers) < len(self._names):
            return None
        try:
            return fetched_user(self._answers, history_fields)
        except CallError as error:
            return unavailable(error.kind, str(error))
        except Exception as error:  # noqa: BLE001 - no error of ours may leave the user's events waiting
            return unavailable(OTHER, f"{type(error).__name__}: {error}")
