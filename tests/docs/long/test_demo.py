"""The quick start's demo, as it stands: `make demo`, Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.docs.conftest import shell_blocks
from tests.docs.outputs import QUICK_START
from tests.docs.pages import PAGES
from tests.docs.session import checkout, environment

# The first time Flink and Kafka are downloaded and the connectors built.
_DEADLINE_S = 600
pytestmark = [pytest.mark.stack, pytest.mark.timeout(_DEADLINE_S + 120)]


def shown_lines() -> list[str]:
    """The lines that the page shows, as patterns: the same words with any numbers."""
    (block,) = (
        block
        for page in PAGES
        if page.name == QUICK_START
        for block in page.blocks
        if block.first_line.startswith("ACTION")
    )
    return [re.sub(r"\d[\d,]*", r"[\\d,]+", re.sub(" +", " +", line)) for line in block.text.splitlines()]


def test_the_demo_shows_what_the_page_shows_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    (block,) = (block for block in shell_blocks(QUICK_START) if "make demo" in block.text)
    place, output = checkout(tmp_path), tmp_path / "output"
    wanted = shown_lines()
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", block.text],
            cwd=place,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(place),
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _DEADLINE_S
        while missing := [line for line in wanted if re.search(line, output.read_text()) is None]:
            assert process.poll() is None, f"it ended:\n{output.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"no {missing} in:\n{output.read_text()[-3000:]}"
            time.sleep(0.5)
        # As a terminal does it: to make and all below it.
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
        assert "stopped everything" in output.read_text()
        assert "Traceback" not in output.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
