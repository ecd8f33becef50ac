"""``python -m pipeline rules``: write, check, test and publish rules, without Flink or Beam."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.cli.command_line import CommandGroup
from pipeline.cli.rules import published as published_rules
from pipeline.cli.rules.explain import explain_rules
from pipeline.cli.rules.file_problems import count_of, show_problems
from pipeline.cli.rules.junit import write_junit_xml
from pipeline.console import lines_of, one_line
from pipeline.launch.options.settings import Settings
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.base.checked_documents import Problem
from transforms.domain.rules.action_topics import ActionTopics
from transforms.domain.rules.files import RuleFiles, read_rule_files
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.schema import rule_schema_json
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.case_runner import CaseResult, dry_call, run_cases, untested

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
    """Run one of the commands; returns 0, 1 if a rule or case fails, 2 if an argument cannot be used."""
    if argv and argv[0] == "backtest":
        from pipeline.cli.rules import backtest

        return backtest.main(argv[1:])
    return _parser().run(argv)


def _parser() -> CommandGroup:
    parser = CommandGroup("rules", __doc__)
    check = parser.add("check", _check, "read and compile every rule; shows every problem with file and line")
    test = parser.add("test", _test, "check every rule and run its cases")
    explain = parser.add("explain", explain_rules, "say for each rule why it does or does not fire for an event")
    parser.commands.add_parser(
        "backtest", help="replay recorded events and say what each rule would have done", allow_abbrev=False
    )
    parser.add("schema", _schema, "print the JSON Schema of rule files")
    new = parser.add("new", _new, "write a first rule with cases")
    publish = parser.add("publish", _publish, "test every rule, then make the rules live in running jobs")
    rollback = parser.add(
        "rollback", published_rules.rollback, "make an earlier set's rules live again, under a new number"
    )
    status = parser.add(
        "status", published_rules.status, "show the published sets, and which is live in which user shards"
    )
    new.add_argument("path", type=Path, help="directory; made if it is not there")
    for command in (check, test, explain, publish):
        command.add_argument("path", type=Path, help="rule file or directory")
    for command in (publish, rollback, status):
        published_rules.add_options(command)
    rollback.add_argument("--to", type=int, metavar="NUMBER", help="default: the set before the live one")
    for command in (publish, rollback):
        command.add_argument("--note", default="", metavar="TEXT", help="why; `rules status` shows it")
    test.add_argument("--junit-xml", type=Path, metavar="FILE", help="write the results as JUnit XML")
    publish.add_argument("--dry_run", action="store_true", help="test and compare, publish nothing")
    for command in (test, publish):
        command.add_argument(
            "--history_fields", action="append", metavar="FIELD", help="as the pipeline's; may be repeated"
        )
        command.add_argument("--history_size", type=int, metavar="EVENTS", help="as the pipeline's (default: 100)")
    explain.add_argument("--event", type=Path, required=True, metavar="FILE", help="the event, JSON or YAML")
    explain.add_argument(
        "--given",
        type=Path,
        metavar="FILE",
        help="what is known before it: profile, visit, history, now, events, as in tests",
    )
    explain.add_argument("--history_fields", action="append", metavar="FIELD", help="as the pipeline's")
    published_rules.add_status_options(status)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    files = read_rule_files(arguments.path, LuaEngines())
    _refuse_own_topics(files)
    _warn_of_failed_dry_calls(files)
    if show_problems(files):
        return 1
    for loaded in files.rules:
        cases = count_of(len(loaded.cases), "case")
        sys.stdout.write(f"ok  {loaded.rule.name}  version {loaded.rule.version}  {cases}\n")
    return 0


def _refuse_own_topics(files: RuleFiles, *more: str) -> None:
    """Add a problem for each rule that writes a topic of jobs: one of their default names, or of ``more``."""
    topics = ActionTopics((*Settings().own_topics.values(), *more))
    for loaded in files.rules:
        try:
            topics.check([loaded.rule])
        except RuleError as error:
            files.problems.append(Problem(loaded.file, loaded.line, str(error)))


def _warn_of_failed_dry_calls(files: RuleFiles) -> None:
    for loaded in files.rules:
        message = dry_call(loaded, LuaEngines())
        if message is not None:
            # A warning only: a rule may rely on fields that all events of its kind have.
            sys.stderr.write(f"warning: {loaded.rule.name} on an event without further fields: {one_line(message)}\n")


def _test(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    files = read_rule_files(arguments.path, LuaEngines())
    if show_problems(files):
        return 1
    results = _run_cases(arguments, files)
    seconds = time.perf_counter() - started
    if arguments.junit_xml is not None:
        try:
            write_junit_xml(results, seconds, arguments.junit_xml)
        except OSError as error:
            sys.stderr.write(f"error: {arguments.junit_xml}: {error.strerror}\n")
            return 2
    return _show_totals(files, results, seconds)


def _run_cases(arguments: argparse.Namespace, files: RuleFiles) -> list[CaseResult]:
    """Run every rule's cases and print the results."""
    settings = ShardSettings(history_fields=tuple(arguments.history_fields), history_size=arguments.history_size)
    results = [result for loaded in files.rules for result in run_cases(loaded, settings, LuaEngines())]
    for result in results:
        sys.stdout.write(
            f"{'ok    ' if result.passed else 'FAILED'}  {result.rule}: {one_line(result.located.case.name)}\n"
        )
        if not result.passed:
            sys.stdout.write(f"        {result.located.file}:{result.located.line}\n")
            sys.stdout.writelines(f"        {lines_of(line)}\n" for line in result.differences)
    for rule in untested(files.rules):
        sys.stderr.write(f"warning: {rule.name} has no case\n")
    return results


def _show_totals(files: RuleFiles, results: list[CaseResult], seconds: float) -> int:
    """Print the numbers of rules, cases and failures; returns the exit code."""
    failed = sum(not result.passed for result in results)
    counts = f"{count_of(len(files.rules), 'rule')}, {count_of(len(results), 'case')}, {failed} failed"
    sys.stdout.write(f"{counts} in {seconds:.2f} s\n")
    return 1 if failed else 0


def _publish(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    files = read_rule_files(arguments.path, LuaEngines())
    _refuse_own_topics(files, arguments.rules_topic)
    if show_problems(files):
        return 1
    _warn_of_failed_dry_calls(files)
    results = _run_cases(arguments, files)
    if _show_totals(files, results, time.perf_counter() - started):
        sys.stderr.write("error: a case failed, nothing was published\n")
        return 1
    return published_rules.publish(arguments, tuple(loaded.rule for loaded in files.rules))


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
