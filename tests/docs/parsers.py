"""The real parsers of ``python -m pipeline`` and its commands, asked without running anything."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final
from unittest import mock

from pipeline.cli import main
from pipeline.launch.options.settings import OPTIONS

COMMANDS: Final = frozenset(main.COMMANDS)


class CommandError(ValueError):
    """A command that could not be run as it stands; says why."""


class Parsed(BaseException):
    """A command's arguments have been parsed: there it ends. ``rest`` is what it leaves to the options of the job."""

    def __init__(self, parser: argparse.ArgumentParser, rest: Sequence[str]) -> None:
        super().__init__()
        self.parser, self.rest = parser, list(rest)


def parsed(name: str, arguments: Sequence[str]) -> Parsed:
    """What the parser of a command makes of arguments; nothing of the command is run.

    Raises:
        CommandError: it refuses them.
    """
    parse_args, parse_known_args = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args
    inside = False

    # Parsers call each other, for subcommands: only the outermost call ends the command.
    def known(self: Any, args: Any = None, namespace: Any = None) -> Any:
        nonlocal inside
        if inside:
            return parse_known_args(self, args, namespace)
        inside = True
        _, rest = parse_known_args(self, args, namespace)
        raise Parsed(self, rest)

    def strict(self: Any, args: Any = None, namespace: Any = None) -> Any:
        nonlocal inside
        inside = True
        parse_args(self, args, namespace)
        raise Parsed(self, [])

    module = main.load(name)
    said = io.StringIO()
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", known),
        mock.patch.object(argparse.ArgumentParser, "parse_args", strict),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(said),
    ):
        try:
            code = module.main(list(arguments))
        except Parsed as found:
            return found
        except SystemExit as ended:
            code = ended.code
    last = (said.getvalue().strip().splitlines() or [f"ended with {code}"])[-1]
    raise CommandError(f"pipeline {name}: {last}")


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    given = {"backtest": ("rules", ["backtest", "rules"])}
    command, arguments = given.get(name, (name, []))
    return _first_parser(command, arguments)


def _first_parser(name: str, arguments: Sequence[str]) -> argparse.ArgumentParser:
    def first(self: Any, args: Any = None, namespace: Any = None) -> Any:
        raise Parsed(self, [])

    module = main.load(name)
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", first),
        mock.patch.object(argparse.ArgumentParser, "parse_args", first),
    ):
        try:
            module.main(list(arguments))
        except Parsed as found:
            return found.parser
    raise AssertionError(f"pipeline {name} has no parser")


def subcommands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """A parser's subcommands by name; none if it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def pipeline_flags() -> frozenset[str]:
    """Every flag of ``python -m pipeline`` and its commands."""
    found = {f"--{name}" for name in OPTIONS} | {"--help", "--config", "--profile"}
    waiting = [parser_of(name) for name in [*COMMANDS, "backtest"]]
    while waiting:
        parser = waiting.pop()
        found |= {flag for action in parser._actions for flag in action.option_strings}
        waiting += subcommands(parser).values()
    return frozenset(found)
