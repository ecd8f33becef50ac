"""From flags to checked ``Settings``, and the text of ``--help``."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline.errors import OptionError
from pipeline.launch.options.fields import GROUPS
from pipeline.launch.options.settings import HINTS, Settings
from pipeline.launch.options.validation import check_combinations

_NUMBERS: Final = (int, float, int | None, float | None)


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
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for option in fields(Settings):
        hint = HINTS[option.name]
        arguments: dict[str, Any] = {"help": _help(option), "default": None}
        if hint is bool:
            arguments["action"] = "store_true"
        elif hint == tuple[str, ...]:
            arguments |= {"action": "append", "metavar": "VALUE"}
        else:
            arguments["metavar"] = _metavar(hint)
        groups[option.metadata["group"]].add_argument(f"--{option.name}", **arguments)
    return parser


_DESCRIPTION: Final = """\
Turns a stream of user-tracking events into actions.

Without options it runs the bundled stream and its sample rules on the embedded runner, then prints a summary.
With --runner=FlinkRunner --bootstrap_servers=… --rules=… it runs on Flink."""


def _help(option: Field[Any]) -> str:
    meta = option.metadata
    notes = [f"unit: {meta['unit']}"] if "unit" in meta else []
    if "choices" in meta:
        notes.append(f"one of {', '.join(meta['choices'])}")
    notes.append(f"default: {shown_default(option)}")
    return f"{meta['text']} ({'; '.join(notes)})".replace("%", "%%")


def shown_default(option: Field[Any]) -> str:
    """The default of a field of ``Settings`` as ``--help`` and docs/configuration.md show it."""
    if option.default is None or option.default == ():
        return "none"
    return "off" if option.default is False else str(option.default)


def _metavar(hint: Any) -> str:
    return "PATH" if hint == Path | None else "NUMBER" if hint in _NUMBERS else "TEXT"


def parse(argv: Sequence[str], program: str = "python -m pipeline") -> Settings:
    """Turn flags into checked settings. ``program`` is the command's name in ``--help``.

    Raises:
        OptionError: a flag is unknown, or its value or the combination is not allowed.
        SystemExit: ``--help`` was given; the help is printed.
    """
    known, unknown = _parser(program).parse_known_args(list(argv))
    if unknown:
        raise OptionError(_unknown(unknown[0]))
    given = {name: _convert(name, value) for name, value in vars(known).items() if value is not None}
    settings = Settings(**given)
    check_combinations(settings)
    return settings


def parse_rules_optional(argv: Sequence[str], program: str) -> Settings:
    """As ``parse``, for commands that take a launch's options and change nothing: ``rules`` may be missing.

    Raises:
        OptionError: as ``parse``.
    """
    has_rules = any(argument.partition("=")[0] in ("--rules", "--rules_topic") for argument in argv)
    return parse(argv, program) if has_rules else replace(parse([*argv, "--rules=."], program), rules=None)


def _unknown(argument: str) -> str:
    name = argument.split("=")[0].removeprefix("--")
    close = difflib.get_close_matches(name, HINTS, 1)
    hint = f"did you mean --{close[0]}?" if close else "--help lists all"
    return f"unknown option {argument!r}: {hint}"


def _convert(name: str, value: Any) -> Any:
    hint = HINTS[name]
    meta = Settings.__dataclass_fields__[name].metadata
    if hint is bool:
        return value
    if hint == tuple[str, ...]:
        return tuple(value)
    if hint in _NUMBERS:
        return _number(name, value, int if hint in (int, int | None) else float, meta)
    if "choices" in meta and value not in meta["choices"]:
        raise OptionError(f"--{name} is {value!r}, allowed: {', '.join(meta['choices'])}")
    if value == "":
        raise OptionError(f"--{name} is empty")
    return Path(value) if hint == Path | None else value


def _number(name: str, text: str, kind: type, meta: Mapping[str, Any]) -> float | int:
    least, most = meta.get("least"), meta.get("most")
    allowed = f"{least if least is not None else 'any'} to {most if most is not None else 'any'} {meta['unit']}"
    try:
        number: float | int = kind(text)
    except ValueError:
        raise OptionError(f"--{name} is {text!r}, allowed: a number, {allowed}") from None
    # A NaN fails both comparisons, so the condition names the allowed range.
    if not ((least is None or number >= least) and (most is None or number <= most)) or number in (float("inf"),):
        raise OptionError(f"--{name} is {text}, allowed: {allowed}")
    return number
