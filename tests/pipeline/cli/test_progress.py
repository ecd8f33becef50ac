"""How far a command is."""

from __future__ import annotations

import io

import pytest

from pipeline.cli.progress import Progress, bar


@pytest.mark.parametrize(
    ("share", "full", "percent"),
    [(0.0, 0, "  0%"), (0.49, 14, " 49%"), (0.5, 15, " 50%"), (0.999, 29, " 99%"), (1.0, 30, "100%")],
)
def test_a_bar_is_as_full_as_its_share(share: float, full: int, percent: str) -> None:
    assert bar(share) == "[" + "#" * full + "." * (30 - full) + "] " + percent


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_written_over_again_and_again() -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress("redrive", stream, clock)
    progress.show(0.1, "at once is nothing to tell")
    for share in (0.2, 0.5):
        clock.now_s += 0.1
        progress.show(share, "12 sent")
    progress.end()
    progress.end()
    lines = [f"\rredrive {bar(share)}  12 sent\x1b[K" for share in (0.2, 0.5)]
    assert stream.getvalue() == "".join(lines) + "\n"


def test_elsewhere_it_is_a_line_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress("redrive", stream, clock)
    for second in range(11):
        clock.now_s = 100.0 + second
        progress.show(second / 10, f"{second} sent")
    progress.end()
    assert stream.getvalue() == f"redrive {bar(0.5)}  5 sent\nredrive {bar(1.0)}  10 sent\n"


def test_what_is_quickly_done_writes_nothing() -> None:
    stream = Terminal()
    progress = Progress("redrive", stream, Clock())
    progress.show(1.0, "done")
    progress.end()
    assert stream.getvalue() == ""
