"""``python -m pipeline``: runs the command that the first argument names, otherwise launches the job."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from pipeline.launch.run import import_beam, launch, quiet_logging


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its module below ``pipeline.cli``, and whether it needs Beam, which takes seconds to import."""

    module: str
    needs_beam: bool = False

    def load(self) -> ModuleType:
        """Import the module, which has a ``main``. Commands that do not run are not imported."""
        return importlib.import_module(f"pipeline.cli.{self.module}")


COMMANDS: Final = {
    "cancel": Command("cancel"),
    "capacity": Command("capacity.command"),
    "dead-letters": Command("dead_letters"),
    "demo": Command("demo", needs_beam=True),
    "deploy": Command("deploy"),
    "destinations": Command("destinations"),
    "doctor": Command("doctor.command"),
    "inspect": Command("inspect"),
    "resume": Command("resume"),
    "rules": Command("rules.command"),
    "savepoint": Command("savepoint"),
    "status": Command("status.command"),
    "ui": Command("ui"),
    "why": Command("why"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or launch the job if the first argument names no command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        return launch(arguments)
    quiet_logging()
    if command.needs_beam:
        import_beam()
    return int(command.load().main(arguments[1:]))
