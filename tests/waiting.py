"""Waiting for a condition with a deadline, and what goes on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def eventually(condition: Callable[[], object], what: str, deadline_s: float = 60, pause_s: float = 0.05) -> None:
    """Wait until the condition holds; fails with ``what`` it is after ``deadline_s``."""
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up, f"not after {deadline_s} s: {what}"
        time.sleep(pause_s)


@contextmanager
def again_and_again(do: Callable[[], None], pause_s: Callable[[], float]) -> Iterator[None]:
    """Do something beside the context, with a pause after each time."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            do()
            ended.wait(pause_s())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
