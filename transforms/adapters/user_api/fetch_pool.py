"""Fetches users beside the stage: at most one fetch a user at a time."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from transforms.adapters.keyed_calls import KeyedCalls
from transforms.adapters.threads import DaemonThreads
from transforms.domain.users.fetched_user import NOTHING_KNOWN, OTHER, FetchedUser, unavailable


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


class FetchPool:
    """Runs fetches beside the stage: at most one a user at a time, answers kept until they are taken.

    Shared by all user shards of a worker, so every method may be called from any thread.
    """

    def __init__(self, api: UserApi, concurrency: int) -> None:
        self._api = api
        self._threads = DaemonThreads(concurrency, "user-api")
        self._calls: KeyedCalls[FetchedUser] = KeyedCalls(kept=10_000, kept_s=60.0)

    def request(self, user_id: str, now_ms: int = 0) -> int:
        """Start a fetch unless one is under way or its answer waits to be taken; the ``now_ms`` it was asked with."""
        return self._calls.start(user_id, lambda: self._begin(user_id), now_ms)

    def poll(self, user_ids: Iterable[str], now_ms: int = 0) -> list[tuple[str, FetchedUser]]:
        """The answers that have come, each once; whoever is not being asked for is from now on, as of ``now_ms``."""
        asked = list(user_ids)
        for user_id in asked:
            self.request(user_id, now_ms)
        return self._calls.poll(asked)

    def wait(self, user_id: str) -> FetchedUser:
        """The answer, once, however long the API's own deadline lets it take; from here on it is the caller's alone."""
        return self._calls.detach(user_id, lambda: self._begin(user_id)).result()

    def cancel(self, user_id: str) -> None:
        """Forget the user: a fetch that has not begun never does, the answer of one under way is nobody's.

        The next ``request`` starts a new fetch, if need be beside the old one.
        """
        self._calls.cancel(user_id)

    def withdraw(self, user_id: str) -> bool:
        """Do not begin a fetch that waits for its turn; whether none is under way now."""
        return self._calls.withdraw(user_id)

    def _begin(self, user_id: str) -> Future[FetchedUser]:
        return self._threads.submit(self._fetch, user_id)

    def _fetch(self, user_id: str) -> FetchedUser:
        try:
            return self._api.fetch(user_id)
        except Exception as error:  # noqa: BLE001 - whatever an API client raises must not park its user for ever
            return unavailable(OTHER, f"{type(error).__name__}: {error}")
