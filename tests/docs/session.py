"""Runs the shell blocks of a page one after the other in one shell, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.docs.pages import ROOT, Block, PageError

# What commands need; what a reader has written here, as rules/, stays apart.
_LINKED: Final = (
    *("Makefile", "README.md", "pyproject.toml", "setup.py"),
    *("examples", "infra", "pipeline", "requirements", "runners", "tests", "transforms"),
)
_MARK: Final = "──── block "


def checkout(folder: Path) -> Path:
    """A checkout of links to this one's files, with this Python as its ``.venv``; what is written stays there."""
    place = folder / "checkout"
    place.mkdir()
    for name in _LINKED:
        (place / name).symlink_to(ROOT / name)
    (place / ".venv").symlink_to(sys.prefix)
    # The environment is there, whatever the times of its files say: nothing is to be installed by a test.
    make = folder / "bin" / "make"
    make.parent.mkdir()
    make.write_text(f'#!/bin/sh\nexec {_which("make")} -o .venv/.installed "$@"\n')
    make.chmod(0o755)
    return place


def _which(program: str) -> str:
    found = subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def environment(place: Path) -> dict[str, str]:
    """A newcomer's, for a checkout: nothing that a ``make`` around this test tells those within."""
    path = f"{place.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}


def outputs_of(blocks: Iterable[Block], place: Path, deadline_s: float) -> Mapping[str, str]:
    """What each block prints, standard error included, by the block's place.

    Raises:
        PageError: one fails, or is not done in time.
    """
    blocks = list(blocks)
    script = "".join(f"echo '{_MARK}{number}'\n{block.text}" for number, block in enumerate(blocks))
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{script}"],
            cwd=place,
            env=environment(place),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=deadline_s,
        )
        said, failed = done.stdout, done.returncode != 0
    except subprocess.TimeoutExpired as error:
        said, failed = (error.stdout or b"").decode(), True
    printed = {
        blocks[int(number)].place: text
        for number, text in re.findall(rf"^{_MARK}(\d+)\n(.*?)(?=^{_MARK}|\Z)", said, re.MULTILINE | re.DOTALL)
    }
    if failed:
        last = list(printed)[-1] if printed else blocks[0].place
        raise PageError(f"{last}: fails, or is not done in {deadline_s:g} s:\n{printed.get(last, said)[-3000:]}")
    return printed
