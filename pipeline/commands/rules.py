"""``python -m pipeline rules``: write, check and test rules, without Flink, Kafka or Beam."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from transforms.domain.rule_files import RuleFiles, read_rule_files
from transforms.domain.rule_schema import rule_schema_json

_NEW_RULE: Final = """\
name: us_page_view
version: 1
description: A page view of a user from the United States.
filter: event.event_name == "page_view" and user.country == "US"
actions:
  - type: debug

tests:
  - name: a page view from the US fires
    profile: {country: US}
    events: [{event_name: page_view}]
    expect: [debug]
  - name: one from Germany does not
    profile: {country: DE}
    events: [{event_name: page_view}]
    expect: nothing
"""


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; 0 all is well, 1 a rule or case is not, 2 an argument that cannot be used."""
    arguments = _parser().parse_args(argv)
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline rules", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="read and compile every rule; shows every problem with file and line")
    check.add_argument("path", type=Path, help="rule file or directory")
    check.set_defaults(run=_check)
    schema = commands.add_parser("schema", help="print the JSON Schema of rule files")
    schema.set_defaults(run=_schema)
    new = commands.add_parser("new", help="write a first rule with cases")
    new.add_argument("path", type=Path, help="directory; made if it is not there")
    new.set_defaults(run=_new)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    return _report(read_rule_files(arguments.path))


def _report(found: RuleFiles) -> int:
    """Show the problems, or what was found if there is none."""
    for problem in found.problems:
        sys.stderr.write(f"error: {problem}\n")
    if found.problems:
        sys.stderr.write(f"{_count(len(found.problems), 'problem')}\n")
        return 1
    for loaded in found.rules:
        cases = _count(len(loaded.cases), "case")
        sys.stdout.write(f"ok  {loaded.rule.name}  version {loaded.rule.version}  {cases}\n")
    return 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _schema(arguments: argparse.Namespace) -> int:
    sys.stdout.write(rule_schema_json())
    return 0


def _new(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path / "us_page_view.yaml"
    if path.exists():
        sys.stderr.write(f"error: {path}: is there already\n")
        return 2
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_NEW_RULE, "utf-8")
    except OSError as error:
        sys.stderr.write(f"error: {path}: {error.strerror}\n")
        return 2
    sys.stdout.write(f"wrote {path}; next: python -m pipeline rules test {arguments.path}\n")
    return 0
