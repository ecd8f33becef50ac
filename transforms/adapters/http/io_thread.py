"""The thread in which a worker waits for sockets: an event loop of asyncio, used for its selector and its timers.

Callbacks instead of coroutines: a call takes a few of them, and a coroutine with its task costs as much as the call.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

_JOIN_S: Final = 1.0


class IoThread:
    """A daemon thread with an event loop; it ends when nobody refers to this object any more.

    Attributes:
        loop: the event loop; only ``submit`` may be used from another thread.
    """

    def __init__(self, name: str = "http") -> None:
        self.loop = asyncio.new_event_loop()
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_woken = False
        thread = threading.Thread(target=_serve, args=(self.loop,), name=name, daemon=True)
        thread.start()
        weakref.finalize(self, _end, self.loop, thread)

    def submit(self, callback: Callable[..., None], *args: Any) -> None:
        """Call ``callback(*args)`` in the thread, soon; callbacks keep their order. Thread-safe."""
        self._inbox.append((callback, args))
        # To wake the loop is a system call, during which another thread takes the interpreter lock: once for a batch.
        if not self._is_woken:
            self._is_woken = True
            self.loop.call_soon_threadsafe(self._empty_inbox)

    def _empty_inbox(self) -> None:
        self._is_woken = False  # first: what is submitted from now on wakes the loop again
        for _ in range(len(self._inbox)):
            callback, args = self._inbox.popleft()
            try:
                callback(*args)
            except Exception as error:  # noqa: BLE001 - the loop logs it, as of every callback, and goes on
                self.loop.call_exception_handler({"message": f"{callback} failed", "exception": error})

    def later(self, pause_s: float, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        """Call ``callback(*args)`` in the thread after a pause; the handle cancels it. Only in the thread."""
        return self.loop.call_later(pause_s, callback, *args)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():  # a callback in the thread may have held the last reference
        thread.join(_JOIN_S)
