"""``event-trigger``, also as ``python -m pipeline``: runs the command that is named, otherwise launches the job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from pipeline.cli.commands import COMMANDS, Commands, parser
from pipeline.cli.errors import exit_code_of
from pipeline.console import log_json, quiet_logging
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
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int | None:
    line = command_line(arguments)
    if isinstance(command := COMMANDS.get(line[0]), Commands) and len(line) == 1:
        raise OptionError(f"{line[0]} lacks its command, allowed: {', '.join(command.commands)}")
    function, bound, _ = parser(line).parse_args(line)
    result = function(*bound.args, **bound.kwargs)
    return result if isinstance(result, int) else 0


def command_line(arguments: Sequence[str]) -> list[str]:
    """The arguments with their command in front, ``run`` if none is named; ``--log_format`` takes effect.

    Raises:
        OptionError: there is no such format.
    """
    line = list(arguments)
    if not line or (line[0].startswith("-") and line[0] not in _ANSWERED):
        line.insert(0, "run")
    rest, formats = [], []
    words = iter(line)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--log_format":
            rest.append(word)
        else:
            formats.append(value if equals else next(words, ""))
    if formats[-1:] == ["json"]:
        log_json()
    if line[0] in _WITH_LOG_FORMAT or " ".join(line[:2]) in _WITH_LOG_FORMAT:
        return line
    if formats and formats[-1] not in ("text", "json"):
        raise OptionError(f"--log_format is {formats[-1]!r}, allowed: text, json")
    return rest
