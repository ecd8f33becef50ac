"""Starts ``python -m pipeline`` in the background and ends it as a user does in a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.integration.jobs import ROOT

MARK = "EVENT_TRIGGER_TEST_MARK"


@contextlib.contextmanager
def started(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path, str]]:
    """A launcher in the background, its output in a file; its descendants carry a mark in their environment.

    Temporary folders are made in ``tmp_path / "temporary"``.
    """
    mark, output = uuid.uuid4().hex, tmp_path / "output"
    (tmp_path / "temporary").mkdir()
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, MARK: mark, "TMPDIR": str(tmp_path / "temporary")},
        )
    try:
        yield process, output, mark
    finally:
        process.kill()
        process.wait()


def marked(mark: str) -> list[str]:
    """Command lines of living processes that were started with the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
    return found


def interrupt(process: subprocess.Popen[bytes], mark: str, tmp_path: Path) -> None:
    """Press Ctrl-C. The launcher and everything it started must end with exit code 0."""
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    nothing_is_left(mark, tmp_path)


def nothing_is_left(mark: str, tmp_path: Path) -> None:
    """Wait until no process that the launcher started lives and no temporary folder exists."""
    deadline = time.monotonic() + 20
    while leftovers := marked(mark) + [path.name for path in (tmp_path / "temporary").iterdir()]:
        assert time.monotonic() < deadline, f"still there: {leftovers}"
        time.sleep(0.1)


def wait_for(output: Path, pattern: str, deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not re.search(pattern, output.read_text()):
        assert time.monotonic() < deadline, f"no {pattern!r} after {deadline_s} s in:\n{output.read_text()[-3000:]}"
        time.sleep(0.2)
