"""Fetches users from the user API outside the event path: at most one fetch in flight per user."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import Future
from functools import partial

from transforms.adapters.keyed_calls import KeyedCalls
from transforms.adapters.threads import DaemonThreads
from transforms.adapters.user_api.client import HttpUserApi
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser


class FetchPool(KeyedCalls[FetchedUser]):
    """Starts fetches; answers are kept until they are taken, for a minute at most.

    Without a user API every user is unknown, with an empty profile.

    Shared by all user shards of a worker, so every method may be called from any thread.
    """

    def __init__(self, api: HttpUserApi | None) -> None:
        super().__init__(kept=10_000, kept_s=60.0)
        self._api = api
        self._unknown = DaemonThreads(1, "user-api-none")

    def request(self, user_id: str, now_ms: int = 0) -> int:
        """Start a fetch, unless one is in flight or its answer waits to be taken.

        Returns:
            The ``now_ms`` that the user's fetch was started with.
        """
        return self._start(user_id, lambda: self._begin(user_id), now_ms)

    def poll(self, keys: Collection[str], now_ms: int = 0) -> list[tuple[str, FetchedUser]]:
        """User and answer of the fetches that have ended, each answer once.

        A shard asks in each step, with all of its users who wait: it costs what has ended, not what waits.
        """
        taken = []
        with self._lock:
            for user_id in [user_id for user_id in self._ended if user_id in keys]:
                call = self._calls[user_id]
                if call.ended_before(self._kept_s):
                    self._call(user_id, partial(self._begin, user_id), now_ms)
                else:
                    self._forget(user_id)
                    taken.append((user_id, call.future.result()))
        return taken

    def restart(self, user_ids: Iterable[str], now_ms: int) -> None:
        """Start the fetches that are missing, because their answers were dropped."""
        with self._lock:
            for user_id in [user_id for user_id in user_ids if user_id not in self._calls]:
                self._call(user_id, partial(self._begin, user_id), now_ms)

    def wait(self, user_id: str) -> FetchedUser:
        """The answer, once, after as long as the client's deadline lets it take; nobody else gets it."""
        return self._detach(user_id, lambda: self._begin(user_id)).result()

    def _begin(self, user_id: str) -> Future[FetchedUser]:
        if self._api is not None:
            return self._api.start(user_id)
        # An answer never comes within its request: callers have one way to go on.
        return self._unknown.submit(lambda: NOTHING_KNOWN)
