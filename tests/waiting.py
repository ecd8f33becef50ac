"""Waits for a condition with a deadline, and repeats an action meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def eventually(condition: Callable[[], object], what: str, deadline_s: float = 60, pause_s: float = 0.05) -> None:
    """Wait until the condition holds. Fails after ``deadline_s`` with ``what``, its description."""
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up, f"not after {deadline_s} s: {what}"
        time.sleep(pause_s)


@contextmanager
def again_and_again(do: Callable[[], None], pause_s: Callable[[], float]) -> Iterator[None]:
    """Call ``do`` in a thread while the context is open, with a pause after each call."""
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
