"""Calls beside the stage, by key: one a key at a time, their answers kept until they are taken."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Generic, TypeVar

_T = TypeVar("_T")


class KeyedCalls(Generic[_T]):
    """Futures by key. Thread-safe; shared by all user shards of a worker.

    Answers nobody takes (their shard moved) go when newer calls begin: those over ``kept``, and those older than
    ``kept_s``.
    """

    def __init__(self, kept: int, kept_s: float) -> None:
        self._kept = kept
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._calls: OrderedDict[str, _Call[_T]] = OrderedDict()

    def start(self, key: str, begin: Callable[[], Future[_T]], now_ms: int = 0) -> int:
        """Begin unless one is under way or its answer waits to be taken; the ``now_ms`` that it was begun with."""
        with self._lock:
            return self._call(key, begin, now_ms).asked_ms

    def poll(self, keys: Iterable[str]) -> list[tuple[str, _T]]:
        """The answers that have come, each once."""
        answers = []
        with self._lock:
            for key in keys:
                call = self._calls.get(key)
                if call is not None and call.future.done():
                    del self._calls[key]
                    answers.append((key, call.future.result()))
        return answers

    def detach(self, key: str, begin: Callable[[], Future[_T]]) -> Future[_T]:
        """The key's call, begun if there is none; from here on it is the caller's alone."""
        with self._lock:
            call = self._call(key, begin, 0)
            del self._calls[key]
        return call.future

    def cancel(self, key: str) -> None:
        """Forget the key: a call that has not begun never does, the answer of one under way is nobody's."""
        with self._lock:
            call = self._calls.pop(key, None)
        if call is not None:
            call.future.cancel()

    def withdraw(self, key: str) -> bool:
        """Do not begin a call that waits for its turn; whether none is under way now."""
        with self._lock:
            call = self._calls.get(key)
            if call is not None and not call.future.cancel():
                return False
            self._calls.pop(key, None)
            return True

    def _call(self, key: str, begin: Callable[[], Future[_T]], now_ms: int) -> _Call[_T]:
        """The key's, begun if there is none; with the lock held."""
        call = self._calls.get(key)
        if call is None or call.older_than(self._kept_s):
            self._calls.pop(key, None)
            self._drop_untaken()
            call = self._calls[key] = _Call(begin(), now_ms)
        return call

    def _drop_untaken(self) -> None:
        while self._calls:
            key, eldest = next(iter(self._calls.items()))
            if not eldest.future.done():
                return
            if len(self._calls) < self._kept and not eldest.older_than(self._kept_s):
                return
            del self._calls[key]


class _Call(Generic[_T]):
    def __init__(self, future: Future[_T], asked_ms: int) -> None:
        self.future = future
        self.asked_ms = asked_ms
        finished_s: list[float] = []  # not of self, so that the future does not refer to what refers to it
        future.add_done_callback(lambda _: finished_s.append(time.monotonic()))
        self._finished_s = finished_s

    def older_than(self, age_s: float) -> bool:
        """Whether its answer came so long ago."""
        if not self.future.done():
            return False
        now_s = time.monotonic()
        return now_s > (*self._finished_s, now_s)[0] + age_s  # those who wait are told before callbacks run
