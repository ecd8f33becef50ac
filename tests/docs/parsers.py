"""The real parser of ``event-trigger``, asked without running anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cyclopts import App, CycloptsError

from pipeline.cli.commands import COMMANDS as TABLE
from pipeline.cli.commands import Commands, parser
from pipeline.cli.errors import _wrong_use
from pipeline.cli.main import command_line
from pipeline.cli.parameters import LaunchOptions
from pipeline.errors import OptionError
from pipeline.launch.options.resolving import SOURCES, Sources
from pipeline.launch.options.settings import OPTIONS

COMMANDS: Final = frozenset(TABLE)


class CommandError(ValueError):
    """A command that could not be run as it stands; says why."""


def parsed(arguments: Sequence[str]) -> tuple[str, list[str] | None]:
    """What the parser makes of arguments; nothing is run.

    Returns:
        The command, and the flags of a launch, None if it takes none.

    Raises:
        CommandError: the parser refuses them.
    """
    try:
        line = command_line(arguments)
        SOURCES.set(Sources())  # the reader's file is not here
        if isinstance(TABLE.get(line[0]), Commands) and len(line) == 1:
            raise CommandError(f"{line[0]} lacks its command")
        _, bound, _ = parser(line).parse_args(line)
    except CycloptsError as error:
        raise CommandError(_wrong_use(error)) from None
    except OptionError as error:
        raise CommandError(str(error)) from None
    launch = [value for value in bound.arguments.values() if isinstance(value, LaunchOptions)]
    takes = [parameter.default for parameter in bound.signature.parameters.values()]
    if any(isinstance(default, LaunchOptions) for default in takes):
        return line[0], launch[0].flags if launch else []
    return line[0], None


def apps() -> Iterator[tuple[str, App]]:
    """Every command with its parser."""
    for name, command in TABLE.items():
        if isinstance(command, Commands):
            for below in command.commands:
                yield f"{name} {below}", parser([name, below])[name][below]
        else:
            yield name, parser([name])[name]


def subcommands(name: str) -> frozenset[str]:
    """The commands below a command; none if it has none."""
    command: Any = TABLE[name]
    return frozenset(command.commands) if isinstance(command, Commands) else frozenset()


def pipeline_flags() -> frozenset[str]:
    """Every flag of ``event-trigger`` and its commands."""
    found = {f"--{name}" for name in OPTIONS} | {"--help", "--version", "--install-completion", "--config", "--profile"}
    for _, app in apps():
        with contextlib.suppress(AttributeError):
            found |= {argument.name for argument in app.assemble_argument_collection()}
    return frozenset(flag for flag in found if flag.startswith("--"))
