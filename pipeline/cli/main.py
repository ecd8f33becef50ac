"""``python -m pipeline``: runs the command that the first argument names, otherwise launches the job."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final

from pipeline.launch.run import import_beam, launch, quiet_logging

# Command -> its module below ``pipeline.cli``, which has a ``main``.
COMMANDS: Final = {
    "cancel": "cancel",
    "capacity": "capacity.command",
    "dead-letters": "dead_letters",
    "demo": "demo",
    "deploy": "deploy",
    "destinations": "destinations",
    "doctor": "doctor.command",
    "inspect": "inspect",
    "resume": "resume",
    "rules": "rules.command",
    "savepoint": "savepoint",
    "status": "status",
    "ui": "ui",
    "why": "why",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or launch the job if the first argument names no command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        return launch(arguments)
    quiet_logging()
    if arguments[0] == "demo":
        import_beam()
    return int(load(arguments[0]).main(arguments[1:]))


def load(command: str) -> ModuleType:
    """Import a command's module. Commands that do not run are not imported."""
    return importlib.import_module(f"pipeline.cli.{COMMANDS[command]}")
