"""A key of the demo that kills its TaskManager, to see that no webhook is lost and none comes twice."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from pipeline.console import say

KILL_KEY: Final = "k"


@contextlib.contextmanager
def keys(terminal: int) -> Iterator[Callable[[], str]]:
    """While the context is open, a function that returns the keys pressed since its last call; "" without a terminal.

    Ctrl-C stays what it is.
    """
    # In the background, a process that asks for keys is stopped.
    if not os.isatty(terminal) or os.tcgetpgrp(terminal) != os.getpgrp():
        yield str
        return
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal, termios.TCSANOW)

    def pressed() -> str:
        is_there = bool(select.select([terminal], [], [], 0)[0])
        return os.read(terminal, 100).decode(errors="replace") if is_there else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


class KillKey:
    """Kills the TaskManager when the key is pressed, and counts the kills.

    Args:
        pressed: the keys since the last call.
        task_managers: process ids of the TaskManagers that run.
    """

    def __init__(self, pressed: Callable[[], str], task_managers: Callable[[], Sequence[int]]) -> None:
        self._pressed = pressed
        self._task_managers = task_managers
        self.kills = 0

    def kill_if_pressed(self) -> None:
        """Kill a TaskManager if the key was pressed; whoever watches the cluster starts another."""
        if KILL_KEY not in self._pressed():
            return
        running = self._task_managers()
        if not running:
            say("no TaskManager runs yet")
            return
        os.kill(running[0], signal.SIGKILL)
        self.kills += 1
        say(f"killed the TaskManager, process {running[0]}; Flink notices it within 20 s")


def standard_input() -> int:
    """The descriptor of the standard input; -1: it is closed."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return -1
