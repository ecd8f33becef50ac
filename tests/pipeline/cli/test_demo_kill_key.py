"""The demo's key that kills the TaskManager, on a terminal and without one."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator

import pytest

from pipeline.cli.demo_kill_key import KillKey, keys, standard_input
from tests.waiting import eventually


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The side of who types, and the side of the program."""
    typing, program = pty.openpty()
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())
    yield typing, program
    os.close(typing)
    os.close(program)


def collector(pressed: Callable[[], str]) -> Callable[[str], bool]:
    """Whether the keys pressed so far are these."""
    so_far: list[str] = []
    return lambda expected: so_far.append(pressed()) or "".join(so_far) == expected  # type: ignore[func-returns-value]


def test_a_key_is_read_without_a_new_line_and_the_terminal_is_as_before_at_the_end(terminal: tuple[int, int]) -> None:
    typing, program = terminal
    before = termios.tcgetattr(program)
    with keys(program) as pressed:
        assert pressed() == ""
        assert termios.tcgetattr(program)[3] & termios.ISIG, "Ctrl-C still interrupts"
        os.write(typing, b"xk")
        are = collector(pressed)
        eventually(lambda: are("xk"), "two keys")
    assert termios.tcgetattr(program) == before


def test_without_a_terminal_or_in_the_background_there_are_no_keys(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    typing, program = terminal
    reading, writing = os.pipe()
    os.write(writing, b"k")
    os.write(typing, b"k\n")
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp() + 1)
    for descriptor in (reading, program, -1):
        with keys(descriptor) as pressed:
            assert pressed() == ""
    os.close(reading)
    os.close(writing)


def test_a_standard_input_that_is_closed_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert standard_input() == -1


def test_the_key_kills_the_task_manager_and_kills_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    process = subprocess.Popen(["sleep", "600"])
    pressed = iter(["", "x", "kk", "k"])
    running = [process.pid]
    key = KillKey(lambda: next(pressed), lambda: running)
    key.kill_if_pressed()
    key.kill_if_pressed()
    assert process.poll() is None
    key.kill_if_pressed()
    assert process.wait(10) == -signal.SIGKILL
    assert key.kills == 1
    running.clear()
    key.kill_if_pressed()
    assert key.kills == 1
    assert "no TaskManager runs yet" in capsys.readouterr().err
