"""Daemon threads: a process ends without waiting for them, where a ``ThreadPoolExecutor`` first finishes all work."""

from __future__ import annotations

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
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        weakref.finalize(self, self._jobs.put, None)

    def submit(self, work: Callable[..., _T], *args: Any) -> Future[_T]:
        """Run ``work(*args)``, unless the future is cancelled before; the future gets its result or its exception."""
        future: Future[_T] = Future()
        with self._lock:
            if self._started < self._count:
                name = f"{self._name}-{self._started}"
                threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()
                self._started += 1
        self._jobs.put(_Job(future, work, args))
        return future


class _Job:
    def __init__(self, future: Future[Any], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._future, self._work, self._args = future, work, args

    def run(self) -> None:
        if not self._future.set_running_or_notify_cancel():
            return
        try:
            result = self._work(*self._args)
        except BaseException as error:  # noqa: BLE001 - the future's reader gets it
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job  # so that an idle thread keeps neither the result nor, through the work, its pool alive
    jobs.put(None)  # for the next thread
