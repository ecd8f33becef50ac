"""Calls made outside the event path, by key: at most one call in flight per key, results kept until they are taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

_T = TypeVar("_T")


class KeyedCalls(Generic[_T]):
    """The base of pools: futures by key. Thread-safe; shared by all user shards of a worker.

    A shard that has moved to another worker never takes its results. They are dropped when newer calls start: results
    beyond ``kept`` in number, and results older than ``kept_s``.
    """

    def __init__(self, kept: int, kept_s: float) -> None:
        self._kept = kept
        self._kept_s = kept_s
        self._lock = threading.RLock()  # a call may end while it begins
        self._calls: dict[str, _Call[_T]] = {}
        self._ended: dict[str, None] = {}  # those of the calls that have ended, eldest first

    def poll(self, keys: Collection[str]) -> list[tuple[str, _T]]:
        """Key and result of the calls that have ended, each once; nothing for keys without a call."""
        results = []
        with self._lock:
            for key in keys:
                call = self._calls.get(key)
                if call is not None and call.future.done():
                    self._forget(key)
                    results.append((key, call.future.result()))
        return results

    def cancel(self, key: str) -> None:
        """Forget the key: a call that has not started never does, and the result of one in flight is dropped.

        The key can have a new call at once, even while the old one is in flight.
        """
        with self._lock:
            call = self._forget(key)
        if call is not None:
            call.future.cancel()

    def withdraw(self, key: str) -> bool:
        """Drop a call that has not started yet; returns False if the key's call is in flight or has ended."""
        with self._lock:
            call = self._calls.get(key)
            if call is not None and not call.future.cancel():
                return False
            self._forget(key)
            return True

    def _start(self, key: str, begin: Callable[[], Future[_T]], now_ms: int = 0) -> int:
        """Start a call, unless one is in flight or its result waits to be taken.

        Returns:
            The ``now_ms`` that the key's call was started with.
        """
        with self._lock:
            return self._call(key, begin, now_ms).started_ms

    def _detach(self, key: str, begin: Callable[[], Future[_T]]) -> Future[_T]:
        """The key's call, started if there is none; from now on only the caller has it."""
        with self._lock:
            call = self._call(key, begin, 0)
            self._forget(key)
        return call.future

    def _call(self, key: str, begin: Callable[[], Future[_T]], now_ms: int) -> _Call[_T]:
        """The key's call, started if there is none; the caller holds the lock."""
        call = self._calls.get(key)
        if call is None or call.ended_before(self._kept_s):
            self._forget(key)
            self._drop_untaken()
            call = self._calls[key] = _Call(begin(), now_ms)
            call.future.add_done_callback(partial(_note_end, key, call, self._lock, self._calls, self._ended))
        return call

    def _forget(self, key: str) -> _Call[_T] | None:
        self._ended.pop(key, None)
        return self._calls.pop(key, None)

    def _drop_untaken(self) -> None:
        """Drop results that nobody takes; calls in flight are no results, however many they are."""
        while self._ended:
            eldest = next(iter(self._ended))
            if len(self._ended) < self._kept and not self._calls[eldest].ended_before(self._kept_s):
                return
            self._forget(eldest)


class _Call(Generic[_T]):
    def __init__(self, future: Future[_T], started_ms: int) -> None:
        self.future = future
        self.started_ms = started_ms
        self.ended_s: float | None = None

    def ended_before(self, age_s: float) -> bool:
        """Whether the call ended more than ``age_s`` ago."""
        return self.ended_s is not None and time.monotonic() > self.ended_s + age_s


def _note_end(
    key: str, call: _Call[_T], lock: threading.RLock, calls: dict[str, _Call[_T]], ended: dict[str, None], _: object
) -> None:
    # Not a method, so that a future has no reference to the pool.
    with lock:
        if calls.get(key) is call:
            call.ended_s = time.monotonic()
            ended[key] = None
