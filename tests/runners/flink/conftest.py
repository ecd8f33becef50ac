from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def left_over(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Returns the processes that this test started, grandchildren included, which still run after up to 5 s.

    They are found by an environment variable that they all inherit.
    """
    tag = f"EVENT_TRIGGER_TEST={uuid.uuid4().hex}"
    monkeypatch.setenv(*tag.split("="))

    def alive() -> list[str]:
        processes = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if tag.encode() in (folder / "environ").read_bytes().split(b"\0"):
                        processes.append(f"{folder.name} {(folder / 'cmdline').read_text()[:200]}")
        return processes

    def after_a_while() -> list[str]:
        give_up = time.monotonic() + 5
        while (processes := alive()) and time.monotonic() < give_up:
            time.sleep(0.05)
        return processes

    return after_a_while
