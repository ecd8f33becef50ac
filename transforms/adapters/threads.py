"""Daemon threads: a process ends without waiting for them, where a ``ThreadPoolExecutor`` first finishes all work."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")


class DaemonThreads:
    """Runs work in up to ``count`` threads, in the order in which it is submitted. Thread-safe.

    The threads are named ``name-0`` and so on, start with the work and end when the pool is no longer referenced.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._started = 0
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        weakref.finalize(self, self._jobs.put, None)

    def submit(self, work: Callable[..., _T], *args: Any) -> Future[_T]:
        """Run ``work(*args)``, unless the future is cancelled before; the future gets its result or its exception."""
        future: Future[_T] = Future()
        with self._lock:
            if self._started < self._count:
                name = f"{self._name}-{self._started}"
                threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()
                self._started += 1
        self._jobs.put(functools.partial(_run, future, work, args))
        return future


def _run(future: Future[_T], work: Callable[..., _T], args: tuple[Any, ...]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            result = work(*args)
        except BaseException as error:  # noqa: BLE001 - the future's reader gets it
            future.set_exception(error)
        else:
            future.set_result(result)


def _work(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # so that an idle thread keeps neither the result nor, through the work, its pool alive
    jobs.put(None)  # for the next thread
