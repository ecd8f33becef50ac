"""A command's progress on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TextIO

_WIDTH: Final = 30
_TERMINAL_S: Final = 0.1
_LINE_S: Final = 5.0


def bar(share: float) -> str:
    """A bar for a share from 0 to 1, and the share in percent."""
    full = int(min(max(share, 0.0), 1.0) * _WIDTH)
    return f"[{'#' * full}{'.' * (_WIDTH - full)}] {int(100 * share):3d}%"


class Progress:
    """Shows one line with a growing bar on a terminal; elsewhere, as in a log, a line every five seconds."""

    def __init__(self, name: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._every_s = _TERMINAL_S if self._terminal else _LINE_S
        self._next_s = clock() + self._every_s
        self._open = False

    def show(self, share: float, text: str) -> None:
        """Show the share, unless the last line is too recent."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s
        line = f"{self._name} {bar(share)}  {text}"
        # \x1b[K clears what is left of a longer previous line.
        self._stream.write(f"\r{line}\x1b[K" if self._terminal else f"{line}\n")
        self._stream.flush()
        self._open = self._terminal

    def end(self) -> None:
        """Finish the line, so that later output begins on a new one."""
        if self._open:
            self._stream.write("\n")
            self._open = False
