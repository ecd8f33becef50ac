"""Runs the shell blocks of a page in order, in one shell, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.docs.pages import ROOT, Block, PageError

# What commands need. Folders that a reader may have made in this checkout, such as rules/, stay out.
_LINKED: Final = (
    *("Makefile", "README.md", "pyproject.toml", "setup.py"),
    *("examples", "infra", "pipeline", "requirements", "runners", "tests", "transforms"),
)
_MARK: Final = "──── block "


def checkout(folder: Path) -> Path:
    """A folder of links to this checkout's files, with this Python as its ``.venv``; commands write only there."""
    place = folder / "checkout"
    place.mkdir()
    for name in _LINKED:
        (place / name).symlink_to(ROOT / name)
    (place / ".venv").symlink_to(sys.prefix)
    # The environment exists, whatever the times of its files say: a test must not install anything.
    make = folder / "bin" / "make"
    make.parent.mkdir()
    make.write_text(f'#!/bin/sh\nexec {_which("make")} -o .venv/.installed "$@"\n')
    make.chmod(0o755)
    return place


def _which(program: str) -> str:
    done = subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def environment(place: Path) -> dict[str, str]:
    """The environment of a newcomer, without the variables that a ``make`` around this test sets."""
    path = f"{place.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # `event-trigger` runs this checkout's code, whichever one the interpreter's packages name.
    home = os.environ.get("HOME", "/")
    return {"PATH": path, "HOME": home, "LANG": "C.UTF-8", "PYTHONPATH": str(place)}


def outputs_of(blocks: Iterable[Block], place: Path, deadline_s: float) -> Mapping[str, str]:
    """Run the blocks; return the output of each, standard error included, by the block's place.

    Raises:
        PageError: a block fails, or takes longer than ``deadline_s``.
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
        output, failed = done.stdout, done.returncode != 0
    except subprocess.TimeoutExpired as error:
        output, failed = (error.stdout or b"").decode(), True
    printed = {
        blocks[int(number)].place: text
        for number, text in re.findall(rf"^{_MARK}(\d+)\n(.*?)(?=^{_MARK}|\Z)", output, re.MULTILINE | re.DOTALL)
    }
    if failed:
        last = list(printed)[-1] if printed else blocks[0].place
        raise PageError(f"{last}: fails, or is not done in {deadline_s:g} s:\n{printed.get(last, output)[-3000:]}")
    return printed
