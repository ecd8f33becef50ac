"""``--help`` of every command is what ``golden/`` has; ``python -m tests.pipeline.cli.test_help`` writes it again."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

import pytest

from pipeline.cli.commands import COMMANDS, Commands
from pipeline.cli.main import main

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["", *COMMANDS] + [
    f"{name} {below}"
    for name, command in COMMANDS.items()
    if isinstance(command, Commands)
    for below in command.commands
]


def shown(name: str) -> str:
    stdout = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": "100"}), contextlib.redirect_stdout(stdout):
        assert main([*name.split(), "--help"]) == 0
    return stdout.getvalue()


def file_of(name: str) -> Path:
    return GOLDEN / f"{name.replace(' ', '_') or 'event-trigger'}.txt"


@pytest.mark.parametrize("name", NAMES)
def test_help_is_as_before(name: str) -> None:
    assert shown(name) == file_of(name).read_text("utf-8")


def test_golden_has_no_page_of_a_command_that_is_gone() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {file_of(name).name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_help_is_plain_and_names_every_option_on_a_line_of_its_own(name: str) -> None:
    lines = shown(name).splitlines()
    assert all(line.isprintable() and len(line) <= 100 for line in lines)
    assert not any(line != line.rstrip() for line in lines)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for page in GOLDEN.iterdir():
        page.unlink()
    for command in NAMES:
        file_of(command).write_text(shown(command), "utf-8")
