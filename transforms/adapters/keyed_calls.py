"""Calls made outside the event path, by key: at most one call in flight per key, results kept until they are taken."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
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
        self._lock = threading.Lock()
        self._calls: OrderedDict[str, _Call[_T]] = OrderedDict()

    def poll(self, keys: Iterable[str]) -> list[tuple[str, _T]]:
        """Key and result of the calls that have ended, each once; nothing for keys without a call."""
        results = []
        with self._lock:
            for key in keys:
                call = self._calls.get(key)
                if call is not None and call.future.done():
                    del self._calls[key]
                    results.append((key, call.future.result()))
        return results

    def cancel(self, key: str) -> None:
        """Forget the key: a call that has not started never does, and the result of one in flight is dropped.

        The key can have a new call at once, even while the old one is in flight.
        """
        with self._lock:
            call = self._calls.pop(key, None)
        if call is not None:
            call.future.cancel()

    def withdraw(self, key: str) -> bool:
        """Drop a call that has not started yet; returns False if the key's call is in flight or has ended."""
        with self._lock:
            call = self._calls.get(key)
            if call is not None and not call.future.cancel():
                return False
            self._calls.pop(key, None)
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
            del self._calls[key]
        return call.future

    def _call(self, key: str, begin: Callable[[], Future[_T]], now_ms: int) -> _Call[_T]:
        """The key's call, started if there is none; the caller holds the lock."""
        call = self._calls.get(key)
        if call is None or call.ended_before(self._kept_s):
            self._calls.pop(key, None)
            self._drop_untaken()
            call = self._calls[key] = _Call(begin(), now_ms)
        return call

    def _drop_untaken(self) -> None:
        while self._calls:
            key, eldest = next(iter(self._calls.items()))
            room = len(self._calls) < self._kept
            if not eldest.future.done() or (room and not eldest.ended_before(self._kept_s)):
                return
            del self._calls[key]


class _Call(Generic[_T]):
    def __init__(self, future: Future[_T], started_ms: int) -> None:
        self.future = future
        self.started_ms = started_ms
        ended_s: list[float] = []  # not an attribute, so that the future has no reference to this object
        future.add_done_callback(lambda _: ended_s.append(time.monotonic()))
        self._ended_s = ended_s

    def ended_before(self, age_s: float) -> bool:
        """Whether the call ended more than ``age_s`` ago."""
        return bool(self._ended_s) and time.monotonic() > self._ended_s[0] + age_s
