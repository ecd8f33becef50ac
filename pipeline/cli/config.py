"""``python -m pipeline config``: shows where the value of each option comes from, and checks the configuration file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cli.command_line import CommandGroup
from pipeline.console import one_line
from pipeline.errors import OptionError
from pipeline.kafka.client_properties import is_secret_property
from pipeline.launch.options.config_file import NAME
from pipeline.launch.options.resolving import DEFAULT, SOURCES, Resolved, check_config, unknown_variables
from pipeline.launch.options.settings import OPTIONS
from pipeline.launch.options.values import PROPERTIES
from pipeline.schemas import SCHEMAS, schema_text
from transforms.domain.base.secret_references import is_reference

_HIDDEN = "[hidden]"


@dataclass(frozen=True, slots=True)
class Row:
    """The value of an option, or of a property, as it may be shown, and where it comes from."""

    option: str
    value: Any
    source: str
    place: str | None


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; 0 done, 1 the file has a problem, 2 a value or file cannot be used."""
    parser = CommandGroup("config", __doc__)
    show = parser.add("show", _show, "every option's value, and where it comes from")
    show.add_argument("--given", action="store_true", help="only options that are given: no defaults")
    check = parser.add("check", _check, "every problem of the configuration file and the environment, with its line")
    schema = parser.add("schema", _schema, "print a JSON Schema: of the file, or of records of a topic")
    schema.add_argument("name", nargs="?", default="config", choices=sorted(SCHEMAS), help="default: config")
    for command in (show, check):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser.run(argv)


def _show(arguments: argparse.Namespace) -> int:
    resolved = SOURCES.get().resolve()
    rows = [row for row in rows_of(resolved) if not arguments.given or row.source != DEFAULT]
    file = None if resolved.file is None else str(resolved.file)
    if arguments.json:
        options = {row.option: {"value": row.value, "source": row.source, "place": row.place} for row in rows}
        sys.stdout.write(json.dumps({"file": file, "profile": resolved.profile, "options": options}) + "\n")
        return 0
    profile = "no profile" if resolved.profile is None else f"profile {resolved.profile}"
    sys.stdout.write(f"no configuration file (./{NAME})\n" if file is None else f"{one_line(file)}, {profile}\n")
    for row in rows:
        shown = (
            {None: "-", True: "true", False: "false"}.get(row.value, row.value)
            if not isinstance(row.value, list)
            else ", ".join(row.value) or "-"
        )
        place = f" {row.place}" if row.place is not None else ""
        sys.stdout.write(one_line(f"{row.option:<36} {shown}  ({row.source}{place})") + "\n")
    return 0


def rows_of(resolved: Resolved) -> Iterator[Row]:
    """A row for each option, and one for each property instead of the option that holds them."""
    for name in OPTIONS:
        origin = resolved.origins[name]
        pairs = dict(pair.partition("=")[::2] for pair in resolved.values[name]) if name in PROPERTIES else {}
        for key, text in pairs.items():
            shown = _HIDDEN if is_secret_property(key) and not is_reference(text) else text
            yield Row(f"{name}.{key}", shown, *_of(resolved, f"{name}.{key}"))
        if not pairs:
            value = resolved.values[name]
            if name.endswith("_token") and value is not None and not is_reference(value):
                value = _HIDDEN
            value = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            yield Row(name, value, origin.source, origin.place)


def _of(resolved: Resolved, name: str) -> tuple[str, str | None]:
    origin = resolved.origins[name]
    return origin.source, origin.place


def _check(arguments: argparse.Namespace) -> int:
    sources = SOURCES.get()
    problems = [{"place": None, "problem": text} for text in unknown_variables(sources.environment)]
    if sources.file is not None:
        problems += [
            {"place": str(problem).removesuffix(f": {problem.detail}"), "problem": problem.detail}
            for problem in check_config(sources.file)
        ]
    elif not arguments.json:
        sys.stdout.write(f"no configuration file: ./{NAME} is not there, --config=FILE names another\n")
    if not problems:
        try:
            sources.resolve()
        except OptionError as error:
            problems.append({"place": None, "problem": str(error)})
    if arguments.json:
        sys.stdout.write(
            json.dumps({"file": None if sources.file is None else str(sources.file), "problems": problems}) + "\n"
        )
    else:
        for problem in problems:
            sys.stderr.write(
                one_line(": ".join(part for part in (problem["place"], problem["problem"]) if part)) + "\n"
            )
        if not problems and sources.file is not None:
            sys.stdout.write(f"ok  {sources.file}\n")
    return 1 if problems else 0


def _schema(arguments: argparse.Namespace) -> int:
    sys.stdout.write(schema_text(arguments.name))
    return 0
