"""``event-trigger``, also as ``python -m pipeline``: runs the command that is named, otherwise launches the job."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from pipeline.cli.commands import COMMANDS, Commands, parser
from pipeline.cli.errors import exit_code_of
from pipeline.console import hide_secrets_of_crashes, log_json, quiet_logging
from pipeline.errors import OptionError

_ANSWERED: Final = ("-h", "--help", "--version", "--install-completion")
# These find it among the options of their launch.
_WITH_LOG_FORMAT: Final = ("run", "resume", "deploy", "doctor", "status", "ui", "rules backtest")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or launch the job if the first argument names none.

    Returns:
        The exit code: 0 done, 1 no, 2 cannot.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    quiet_logging()
    if argv is None:
        hide_secrets_of_crashes()
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int | None:
    line = command_line(arguments)
    if isinstance(command := COMMANDS.get(line[0]), Commands) and len(line) == 1:
        raise OptionError(f"{line[0]} lacks its command, allowed: {', '.join(command.commands)}")
    function, bound, _ = parser(line).parse_args(line)
    result = function(*bound.args, **bound.kwargs)
    return result if isinstance(result, int) else 0


def command_line(arguments: Sequence[str]) -> list[str]:
    """The arguments with their command in front, ``run`` if none is named; those of every command take effect.

    Raises:
        OptionError: one of these lacks its value, or it is not allowed.
    """
    line, config = _without("--config", arguments)
    line, profile = _without("--profile", line)
    if not line or (line[0].startswith("-") and line[0] not in _ANSWERED):
        line.insert(0, "run")
    rest, log_format = _without("--log_format", line)
    if log_format == "json":
        log_json()
    if line[0] not in _WITH_LOG_FORMAT and " ".join(line[:2]) not in _WITH_LOG_FORMAT:
        if log_format not in (None, "text", "json"):
            raise OptionError(f"--log_format is {log_format!r}, allowed: text, json")
        line = rest
    # The demo's launch depends on nothing but its flags.
    if line[0] not in (*_ANSWERED, "demo") and "--help" not in line:
        from pipeline.launch.options.resolving import SOURCES, find_sources

        SOURCES.set(find_sources(config, profile, os.environ))
    return line


def _without(name: str, line: Sequence[str]) -> tuple[list[str], str | None]:
    """A line without an option, and the option's last value."""
    rest, value = list[str](), None
    words = iter(line)
    for word in words:
        if word == name:
            value = next(words, None)
            if value is None:
                raise OptionError(f"{name} lacks its value")
        elif word.startswith(f"{name}="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, value
