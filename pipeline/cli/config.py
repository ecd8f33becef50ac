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
from pipeline.launch.options.resolving import DEFAULT, NO_FILE, SOURCES, Resolved, check_config, unknown_variables
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
    sys.stdout.write(f"{one_line(resolved.where)}\n")
    for row in rows:
        place = f" {row.place}" if row.place is not None else ""
        sys.stdout.write(one_line(f"{row.option:<36} {_text(row.value)}  ({row.source}{place})") + "\n")
    return 0


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)


def rows_of(resolved: Resolved) -> Iterator[Row]:
    """A row for each option, and one for each property instead of the option that holds them."""
    for name in OPTIONS:
        if pairs := _pairs(resolved, name):
            for key, text in pairs.items():
                shown = _HIDDEN if is_secret_property(key) and not is_reference(text) else text
                yield _row(resolved, f"{name}.{key}", shown)
        else:
            value = resolved.values[name]
            yield _row(resolved, name, _HIDDEN if value is not None and _may_be_secret(name, value) else value)


def _pairs(resolved: Resolved, name: str) -> dict[str, str]:
    return dict(pair.partition("=")[::2] for pair in resolved.values[name]) if name in PROPERTIES else {}


def _may_be_secret(name: str, value: Any) -> bool:
    """Whether a value that is not allowed may be a secret: a token itself, or a URL with a password."""
    return (OPTIONS[name].is_reference and not is_reference(value)) or (
        name.endswith("_url") and set("@?#") & set(value) != set()
    )


def _row(resolved: Resolved, name: str, value: Any) -> Row:
    origin = resolved.origins[name]
    value = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return Row(name, value, origin.source, origin.place)


def _check(arguments: argparse.Namespace) -> int:
    sources = SOURCES.get()
    problems = [*unknown_variables(sources.environment)]
    if sources.file is not None:
        problems += map(str, check_config(sources.file))
    if not problems:
        try:
            sources.resolve().settings(rules_required=False)
        except OptionError as error:
            problems.append(str(error))
    if arguments.json:
        file = None if sources.file is None else str(sources.file)
        sys.stdout.write(json.dumps({"file": file, "problems": problems}) + "\n")
    elif problems:
        sys.stderr.writelines(f"{one_line(problem)}\n" for problem in problems)
    else:
        sys.stdout.write(f"ok  {sources.file or NO_FILE}\n")
    return 1 if problems else 0


def _schema(arguments: argparse.Namespace) -> int:
    sys.stdout.write(schema_text(arguments.name))
    return 0
