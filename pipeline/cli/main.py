"""``python -m pipeline``: runs the command that the first argument names, otherwise launches the job."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final

from pipeline.console import complain
from pipeline.errors import OptionError
from pipeline.launch.options.resolving import SOURCES, find_sources
from pipeline.launch.run import import_beam, launch, quiet_logging

# Command -> its module below ``pipeline.cli``, which has a ``main``.
COMMANDS: Final = {
    "cancel": "cancel",
    "capacity": "capacity.command",
    "config": "config",
    "dead-letters": "dead_letters",
    "demo": "demo",
    "deploy": "deploy",
    "destinations": "destinations",
    "doctor": "doctor.command",
    "init": "init",
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
    try:
        arguments = take_sources(arguments)
    except OptionError as error:
        complain(str(error))
        return 2
    if not arguments or arguments[0] not in COMMANDS:
        return launch(arguments)
    quiet_logging()
    if arguments[0] == "demo":
        import_beam()
    return int(load(arguments[0]).main(arguments[1:]))


def take_sources(arguments: Sequence[str]) -> list[str]:
    """Set ``SOURCES`` from --config, --profile and the environment; returns the other arguments.

    Raises:
        OptionError: one of them lacks its value.
    """
    if arguments[:1] == ["demo"]:  # its launch depends on nothing but its flags
        return list(arguments)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--config", "--profile"):
        parser.add_argument(name)
    try:
        given, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise OptionError(str(error)) from None
    SOURCES.set(find_sources(given.config, given.profile, os.environ))
    return rest


def load(command: str) -> ModuleType:
    """Import a command's module. Commands that do not run are not imported."""
    return importlib.import_module(f"pipeline.cli.{COMMANDS[command]}")
