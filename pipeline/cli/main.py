"""``python -m pipeline``: runs the command that is named first, or launches the job."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from pipeline.launch.run import import_beam, launch, quieten


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the module below ``pipeline.cli`` with its ``main``, and whether it needs Beam (seconds to import)."""

    module: str
    needs_beam: bool = False

    def load(self) -> ModuleType:
        """Import the module. Only the command that runs is imported."""
        return importlib.import_module(f"pipeline.cli.{self.module}")


COMMANDS: Final = {
    "cancel": Command("cancel"),
    "capacity": Command("capacity.command"),
    "dead-letters": Command("dead_letters"),
    "demo": Command("demo", needs_beam=True),
    "deploy": Command("deploy"),
    "destinations": Command("destinations"),
    "doctor": Command("doctor"),
    "inspect": Command("inspect"),
    "resume": Command("resume"),
    "rules": Command("rules.command"),
    "savepoint": Command("savepoint"),
    "status": Command("status"),
    "ui": Command("ui"),
    "why": Command("why"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or launch the job where the first argument names none; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        return launch(arguments)
    quieten()
    if command.needs_beam:
        import_beam()
    return int(command.load().main(arguments[1:]))
