"""``event-trigger config``: shows where the value of each option comes from, and checks the configuration file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cli.parameters import Name
from pipeline.console import complain, did_you_mean, out, out_json
from pipeline.errors import OptionError
from pipeline.launch.options.resolving import DEFAULT, NO_FILE, SOURCES, Resolved, check_config, unknown_variables
from pipeline.launch.options.settings import OPTIONS
from pipeline.launch.options.values import PROPERTIES
from pipeline.schemas import SCHEMAS, schema_text
from transforms.adapters.kafka.clients import is_secret_property
from transforms.domain.base.secret_references import is_reference

_HIDDEN = "[hidden]"


@dataclass(frozen=True, slots=True)
class Row:
    """The value of an option, or of a property, as it may be shown, and where it comes from."""

    option: str
    value: Any
    source: str
    place: str | None


def show(*, given: bool = False, json: bool = False) -> None:
    """Print every option's value, and where it comes from: flag, environment, profile, file or default.

    0: shown; 2: a value or the file cannot be used.

    Args:
        given: only options that are given: no defaults.
        json: print JSON.
    """
    resolved = SOURCES.get().resolve()
    rows = [row for row in rows_of(resolved) if not given or row.source != DEFAULT]
    if json:
        options = {row.option: {"value": row.value, "source": row.source, "place": row.place} for row in rows}
        file = None if resolved.file is None else str(resolved.file)
        out_json({"file": file, "profile": resolved.profile, "options": options})
        return
    out(resolved.where)
    for row in rows:
        place = f" {row.place}" if row.place is not None else ""
        out(f"{row.option:<36} {_text(row.value)}  ({row.source}{place})")


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


def check(*, json: bool = False) -> int:
    """Print every problem of the configuration file and the environment, with its line.

    0: there is none; 1: there are some.

    Args:
        json: print JSON.
    """
    sources = SOURCES.get()
    problems = [*unknown_variables(sources.environment)]
    if sources.file is not None:
        problems += map(str, check_config(sources.file))
    if not problems:
        try:
            sources.resolve().settings(rules_required=False)
        except OptionError as error:
            problems.append(str(error))
    if json:
        out_json({"file": None if sources.file is None else str(sources.file), "problems": problems})
    elif problems:
        for problem in problems:
            complain(problem)
    else:
        out(f"ok  {sources.file or NO_FILE}")
    return 1 if problems else 0


def schema(name: Name = "config", /) -> None:
    """Print a JSON Schema: of the configuration file, or of records of a topic.

    Args:
        name: of the schema.
    """
    if name not in SCHEMAS:
        hint = did_you_mean(name, SCHEMAS)
        raise OptionError(f"schema is {name!r}, allowed: {', '.join(sorted(SCHEMAS))}{f'; {hint}' if hint else ''}")
    sys.stdout.write(schema_text(name))
