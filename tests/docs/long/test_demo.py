"""The quick start's demos, as they stand, and the way from a clone to a rule of one's own that fires."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.docs.conftest import shell_blocks
from tests.docs.outputs import QUICK_START
from tests.docs.pages import PAGES, ROOT
from tests.docs.session import checkout, environment

# The first time Flink and Kafka are downloaded and the connectors built.
_DEADLINE_S = 600
pytestmark = [pytest.mark.stack, pytest.mark.timeout(_DEADLINE_S + 120)]


# From a clone to a rule of one's own that fires, with Flink, Kafka and packages in their caches.
_GOAL_S = 300


def shown_lines(first: str) -> list[str]:
    """The lines that the page shows, as patterns: the same words with any numbers."""
    (block,) = (
        block
        for page in PAGES
        if page.name == QUICK_START
        for block in page.blocks
        if block.first_line.startswith(first)
    )
    return [
        re.sub(r"user_\d+", r"user_\\d+", re.sub(r"(?<![_\d])\d[\d,.]*", r"[\\d,.]+", re.sub(" +", " +", line)))
        for line in block.text.splitlines()
    ]


class Demo:
    """A demo that runs in a folder."""

    def __init__(self, command: str, place: Path, output: Path, variables: dict[str, str]) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=place,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )
        self._deadline = time.monotonic() + _DEADLINE_S

    def shows(self, *wanted: str) -> None:
        """Wait for all of the patterns."""
        while missing := [line for line in wanted if re.search(line, self.output.read_text()) is None]:
            assert self.process.poll() is None, f"it ended:\n{self.output.read_text()[-3000:]}"
            assert time.monotonic() < self._deadline, f"no {missing} in:\n{self.output.read_text()[-3000:]}"
            time.sleep(0.2)

    def interrupt(self) -> None:
        """Press Ctrl-C in its terminal: it goes to make and all below it."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(60)
        assert "stopped everything" in self.output.read_text()
        assert "Traceback" not in self.output.read_text()


@contextlib.contextmanager
def demo(command: str, place: Path, output: Path, variables: dict[str, str]) -> Iterator[Demo]:
    running = Demo(command, place, output, variables)
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()


def demo_block(options: str) -> str:
    """The command of the page's demo with, or without, options."""
    (block,) = (block for block in shell_blocks(QUICK_START) if block.text.rstrip() == f"make demo{options}")
    return block.text


def test_the_demo_shows_what_the_page_shows_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    place = checkout(tmp_path)
    with demo(demo_block(""), place, tmp_path / "output", environment(place)) as running:
        running.shows(*shown_lines("ACTION"))
        running.interrupt()


def test_from_a_clone_to_a_rule_of_one_s_own_that_fires_and_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = {page.name: page for page in PAGES}
    (written,) = (block.text for block in pages[QUICK_START].blocks if "cat > rules/vip_checkout.yaml" in block.text)
    clone = tmp_path / "clone"
    # Setting up needs what this machine's package index needs; nothing is taken from the environment of this test.
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS", "PYTHON", "VIRTUAL_ENV"))
    }
    started_s = time.monotonic()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    subprocess.run(["bash", "-c", f"make setup && {written}"], cwd=clone, env=variables, check=True)
    command = demo_block(' ARGS="--rules=rules/ --ui"')
    with demo(command, clone, tmp_path / "output", variables) as running:
        running.shows(r"FIRED vip_checkout +user_\d+ +checkout +debug +after [\d,]+ ms")
        fired_s = time.monotonic() - started_s
        (address,) = re.findall(r"the page: (http://127\.0\.0\.1:\d+)", running.output.read_text())
        assert requests.get(address, timeout=30).status_code == 200
        rule = clone / "rules" / "vip_checkout.yaml"
        saved_s = time.monotonic()
        rule.write_text(rule.read_text().replace("version: 1", "version: 2"))
        running.shows(*shown_lines("rules: changed"))
        with capsys.disabled():
            print(f"\nfrom a clone to a rule of one's own that fires: {fired_s:.0f} s (goal: {_GOAL_S} s)")
            print(f"from a saved file to its set in all shards: {time.monotonic() - saved_s:.1f} s")
        shown = running.output.read_text()
        for what in ("see why", "inspect a user", "see rates", "see dead letters", "see rule sets"):
            (step,) = re.findall(rf"  {what} +(event-trigger .*)", shown)
            # Otherwise it shows rates until Ctrl-C.
            line = f".venv/bin/{step}{' --once' if what == 'see rates' else ''}"
            done = subprocess.run(
                ["bash", "-c", line], cwd=clone, env=variables, capture_output=True, text=True, timeout=240, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        running.interrupt()
    assert not (clone / ".event-trigger" / "demo.yaml").exists()
