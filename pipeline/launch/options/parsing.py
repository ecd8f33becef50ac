"""From flags to checked ``Settings``, and the text of ``--help``."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline.errors import OptionError
from pipeline.launch.options.fields import Option
from pipeline.launch.options.resolving import SOURCES
from pipeline.launch.options.settings import GROUPS, OPTIONS, Settings


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(message)


def _parser(program: str) -> _Parser:
    parser = _Parser(
        prog=program,
        usage=f"{program} [OPTIONS]",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
    )
    groups = {group.heading: parser.add_argument_group(group.heading) for group in GROUPS}
    for option in OPTIONS.values():
        arguments: dict[str, Any] = {"help": _help(option), "default": None}
        if option.kind is bool:
            arguments |= {"action": "store_const", "const": "true"}
        elif option.kind == tuple[str, ...]:
            arguments |= {"action": "append", "metavar": "VALUE"}
        else:
            arguments["metavar"] = "PATH" if option.kind is Path else "NUMBER" if option.is_number else "TEXT"
        groups[option.heading].add_argument(f"--{option.name}", **arguments)
    return parser


_DESCRIPTION: Final = """\
Turns a stream of user-tracking events into actions.

Without options it runs the bundled stream and its sample rules on the embedded runner, then prints a summary.
With --runner=FlinkRunner --bootstrap_servers=… --rules=… it runs on Flink.
Each option may also stand in event-trigger.yaml (--config=FILE, --profile=NAME) or in EVENT_TRIGGER_OPTION."""


def _help(option: Option) -> str:
    notes = [f"unit: {option.unit}"] if option.unit is not None else []
    if option.choices:
        notes.append(f"one of {', '.join(option.choices)}")
    notes.append(f"default: {option.shown_default}")
    return f"{option.text} ({'; '.join(notes)})".replace("%", "%%")


def parse(argv: Sequence[str], program: str = "python -m pipeline", rules_required: bool = True) -> Settings:
    """Turn flags into checked settings; what they do not give comes from ``SOURCES``.

    Args:
        argv: the flags.
        program: the command's name in ``--help``.
        rules_required: whether a run on Kafka without rules is an error. Commands that change nothing need none.

    Raises:
        OptionError: a flag is unknown, or its value or the combination is not allowed.
        SystemExit: ``--help`` was given; the help is printed.
    """
    return SOURCES.get().resolve(given_flags(argv, program)).settings(rules_required)


def parse_rules_optional(argv: Sequence[str], program: str) -> Settings:
    """As ``parse``, for commands that take a launch's options and change nothing: ``rules`` may be missing.

    Raises:
        OptionError: as ``parse``.
    """
    return parse(argv, program, rules_required=False)


def given_flags(argv: Sequence[str], program: str = "python -m pipeline") -> Mapping[str, Any]:
    """The flags of ``argv`` by option: a text, or the texts of a repeatable one.

    Raises:
        OptionError: a flag is unknown, or lacks its value.
        SystemExit: ``--help`` was given; the help is printed.
    """
    # A switch that a file turns on is turned off by --NAME=false, which argparse does not have.
    switches = dict[str, str]()
    rest = []
    for argument in argv:
        found = re.fullmatch(r"--(\w+)=(.*)", argument, re.DOTALL)
        if found is not None and found[1] in OPTIONS and OPTIONS[found[1]].kind is bool:
            switches[found[1]] = found[2]
        else:
            rest.append(argument)
    known, unknown = _parser(program).parse_known_args(rest)
    if unknown:
        raise OptionError(_unknown(unknown[0]))
    return {name: value for name, value in vars(known).items() if value is not None} | switches


def _unknown(argument: str) -> str:
    name = argument.split("=")[0].removeprefix("--")
    close = difflib.get_close_matches(name, OPTIONS, 1)
    hint = f"did you mean --{close[0]}?" if close else "--help lists all"
    return f"unknown option {argument!r}: {hint}"
