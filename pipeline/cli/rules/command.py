"""``python -m pipeline rules``: write, check, test and publish rules, without Flink or Beam."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pipeline.cli.rules import published as published_rules
from pipeline.cli.subcommands import subcommands
from transforms.domain.base.yaml_documents import YamlError, read_documents
from transforms.domain.rules.cases import Case
from transforms.domain.rules.files import RuleFiles, read_rule_files
from transforms.domain.rules.schema import rule_schema_json
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.case_runner import CaseResult, dry_call, run_cases, untested
from transforms.domain.simulation.explain import explain

_LATEST_MS: Final = 253_402_300_799_000  # the end of the year 9999

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
    if argv and argv[0] == "backtest":
        from pipeline.cli.rules import backtest

        return backtest.main(argv[1:])
    arguments = _parser().parse_args(argv)
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline rules", description=__doc__, allow_abbrev=False)
    commands = subcommands(parser)
    check = commands.add_parser("check", help="read and compile every rule; shows every problem with file and line")
    check.add_argument("path", type=Path, help="rule file or directory")
    check.set_defaults(run=_check)
    test = commands.add_parser("test", help="check every rule and run its cases")
    test.add_argument("path", type=Path, help="rule file or directory")
    test.add_argument("--junit-xml", type=Path, metavar="FILE", help="write the results as JUnit XML")
    _add_history_options(test)
    test.set_defaults(run=_test)
    explain_ = commands.add_parser("explain", help="say for each rule why it does or does not fire for an event")
    explain_.add_argument("path", type=Path, help="rule file or directory")
    explain_.add_argument("--event", type=Path, required=True, metavar="FILE", help="the event, JSON or YAML")
    explain_.add_argument(
        "--given",
        type=Path,
        metavar="FILE",
        help="what is known before it: profile, visit, history, now, events, as in tests",
    )
    explain_.add_argument("--history_fields", action="append", default=[], metavar="FIELD", help="as the pipeline's")
    explain_.set_defaults(run=_explain)
    commands.add_parser("backtest", help="replay recorded events and say what each rule would have done")
    schema = commands.add_parser("schema", help="print the JSON Schema of rule files")
    schema.set_defaults(run=_schema)
    new = commands.add_parser("new", help="write a first rule with cases")
    new.add_argument("path", type=Path, help="directory; made if it is not there")
    new.set_defaults(run=_new)
    publish = commands.add_parser("publish", help="test every rule, then make the rules live in running jobs")
    publish.add_argument("path", type=Path, help="rule file or directory")
    published_rules.add_options(publish)
    publish.add_argument("--note", default="", metavar="TEXT", help="why; `rules status` shows it")
    publish.add_argument("--dry_run", action="store_true", help="test and compare, publish nothing")
    _add_history_options(publish)
    publish.set_defaults(run=_publish)
    rollback = commands.add_parser("rollback", help="make an earlier set's rules live again, under a new number")
    published_rules.add_options(rollback)
    rollback.add_argument("--to", type=int, metavar="NUMBER", help="default: the set before the live one")
    rollback.add_argument("--note", default="", metavar="TEXT", help="why; `rules status` shows it")
    rollback.set_defaults(run=published_rules.rollback)
    status = commands.add_parser("status", help="show the published sets, and which is live in which user shards")
    published_rules.add_options(status)
    published_rules.add_status_options(status)
    status.set_defaults(run=published_rules.status)
    return parser


def _add_history_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--history_fields", action="append", default=[], metavar="FIELD", help="as the pipeline's; may be repeated"
    )
    parser.add_argument(
        "--history_size", type=int, default=100, metavar="EVENTS", help="as the pipeline's (default: 100)"
    )


def _check(arguments: argparse.Namespace) -> int:
    found = read_rule_files(arguments.path)
    _call_dry(found)
    return _report(found)


def _call_dry(found: RuleFiles) -> None:
    for loaded in found.rules:
        message = dry_call(loaded)
        if message is not None:
            # Not every rule has to bear an event that lacks all it is about, so that this is no problem by itself.
            sys.stderr.write(f"warning: {loaded.rule.name} on an event without further fields: {message}\n")


def _report(found: RuleFiles) -> int:
    """Show the problems, or what was found if there is none."""
    if _show_problems(found):
        return 1
    for loaded in found.rules:
        cases = _count(len(loaded.cases), "case")
        sys.stdout.write(f"ok  {loaded.rule.name}  version {loaded.rule.version}  {cases}\n")
    return 0


def _show_problems(found: RuleFiles) -> bool:
    for problem in found.problems:
        sys.stderr.write(f"error: {problem}\n")
    if found.problems:
        sys.stderr.write(f"{_count(len(found.problems), 'problem')}\n")
    return bool(found.problems)


def _test(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    found = read_rule_files(arguments.path)
    if _show_problems(found):
        return 1
    results = _run_cases(arguments, found)
    seconds = time.perf_counter() - started
    if arguments.junit_xml is not None:
        try:
            arguments.junit_xml.write_bytes(junit_xml(results, seconds))
        except OSError as error:
            sys.stderr.write(f"error: {arguments.junit_xml}: {error.strerror}\n")
            return 2
    return _show_count(found, results, seconds)


def _run_cases(arguments: argparse.Namespace, found: RuleFiles) -> list[CaseResult]:
    """Every rule's cases, run and shown."""
    settings = ShardSettings(history_fields=tuple(arguments.history_fields), history_size=arguments.history_size)
    results = [result for loaded in found.rules for result in run_cases(loaded, settings)]
    for result in results:
        sys.stdout.write(f"{'ok    ' if result.passed else 'FAILED'}  {result.rule}: {result.located.case.name}\n")
        if not result.passed:
            sys.stdout.write(f"        {result.located.file}:{result.located.line}\n")
            sys.stdout.writelines(f"        {line}\n" for line in result.differences)
    for rule in untested(found.rules):
        sys.stderr.write(f"warning: {rule.name} has no case\n")
    return results


def _show_count(found: RuleFiles, results: list[CaseResult], seconds: float) -> int:
    """How many cases there were and failed; the exit code."""
    failed = sum(not result.passed for result in results)
    counted = f"{_count(len(found.rules), 'rule')}, {_count(len(results), 'case')}, {failed} failed"
    sys.stdout.write(f"{counted} in {seconds:.2f} s\n")
    return 1 if failed else 0


def _publish(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    found = read_rule_files(arguments.path)
    if _show_problems(found):
        return 1
    _call_dry(found)
    results = _run_cases(arguments, found)
    if _show_count(found, results, time.perf_counter() - started):
        sys.stderr.write("error: a case failed, nothing was published\n")
        return 1
    return published_rules.publish(arguments, tuple(loaded.rule for loaded in found.rules))


def junit_xml(results: list[CaseResult], seconds: float) -> bytes:
    """The results as JUnit XML, which CI systems show: a suite a rule."""
    root = ElementTree.Element("testsuites", name="rules", time=f"{seconds:.3f}")
    suites: dict[str, ElementTree.Element] = {}
    for result in results:
        suite = suites.get(result.rule)
        if suite is None:
            suite = suites[result.rule] = ElementTree.SubElement(root, "testsuite", name=result.rule)
        attributes = {
            "classname": result.rule,
            "name": _xml(result.located.case.name),
            "file": str(result.located.file),
            "line": str(result.located.line),
        }
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if not result.passed:
            text = _xml("\n".join(result.differences))
            ElementTree.SubElement(case, "failure", message=text.partition("\n")[0]).text = text
    for one in [*suites.values(), root]:
        one.set("tests", str(len(list(one.iter("testcase")))))
        one.set("failures", str(len(list(one.iter("failure")))))
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def _explain(arguments: argparse.Namespace) -> int:
    found = read_rule_files(arguments.path)
    if _show_problems(found):
        return 1
    try:
        given = _mapping(arguments.given) if arguments.given is not None else {}
        case = _explained_case(_mapping(arguments.event), given)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    settings = ShardSettings(history_fields=tuple(arguments.history_fields))
    for loaded in found.rules:
        said = explain(loaded, case, settings)
        sys.stdout.write(
            f"{said.rule.name} version {said.rule.version}: {'fires' if said.fires else 'does not fire'}\n"
        )
        sys.stdout.writelines(f"  {line}\n" for line in [*said.problems, *said.lines])
    return 0


def _explained_case(event: dict[str, Any], given: dict[str, Any]) -> Case:
    """An event with a timestamp of its own is met at that time, unless ``now`` says otherwise."""
    timestamp_ms = event.get("timestamp")
    if type(timestamp_ms) is int and "now" not in given and 0 < timestamp_ms < _LATEST_MS:
        given = given | {"now": datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat()}
    before = given.get("events", [])
    if not isinstance(before, list):
        raise ValueError(f"events are {before!r}, allowed is a list of those before it")
    return Case.model_validate({"name": "explain", "expect": "nothing"} | given | {"events": [*before, event]})


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file of one mapping.

    Raises:
        ValueError: it is something else.
    """
    text = path.read_text("utf-8")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        try:
            value = next((document.value for document in read_documents(text)), None)
        except YamlError as error:
            raise ValueError(f"{path}:{error.line}: neither JSON nor YAML: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: allowed is one mapping, this is a {type(value).__name__}")
    return value


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
