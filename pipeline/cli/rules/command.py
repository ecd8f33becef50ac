"""``event-trigger rules``: write, check and test rules, without Flink or Beam."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from pipeline.cli.parameters import Count, File
from pipeline.cli.rules.file_problems import checked_rules, count_of, problem_documents, usable_rules
from pipeline.cli.rules.junit import write_junit_xml
from pipeline.console import out, out_json
from pipeline.errors import OptionError
from pipeline.launch.options import Settings
from pipeline.launch.options.settings import OPTIONS
from pipeline.launch.options.values import from_text
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.action_topics import ActionTopics
from transforms.domain.rules.files import RuleFiles
from transforms.domain.rules.schema import rule_schema_json
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.case_runner import CaseResult, run_cases
from transforms.domain.simulation.explain import explained_failure

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


Text = Annotated[str | None, Parameter(metavar="NUMBER")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class History:
    """The options of the pipeline that change what rules do; the configuration file gives them, too.

    Args:
        history_fields: as the pipeline's; may be repeated.
        history_size: as the pipeline's.
        state_ttl_seconds: as the pipeline's.
        allowed_lateness_seconds: as the pipeline's; without it nothing is late.
        enrichment_deadline_seconds: as the pipeline's.
        profile_max_age_seconds: as the pipeline's.
        max_event_bytes: as the pipeline's.
        min_event_timestamp_ms: as the pipeline's.
        max_event_lead_seconds: as the pipeline's.
    """

    history_fields: Annotated[tuple[str, ...], Parameter(metavar="FIELD")] = ()
    history_size: Count = OPTIONS["history_size"].default
    state_ttl_seconds: Text = None
    allowed_lateness_seconds: Text = None
    enrichment_deadline_seconds: Text = None
    profile_max_age_seconds: Text = None
    max_event_bytes: Text = None
    min_event_timestamp_ms: Text = None
    max_event_lead_seconds: Text = None

    def given(self) -> dict[str, Any]:
        """The options that are given, as fields of ``Settings``.

        Raises:
            OptionError: a value is not allowed.
        """
        texts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value if name == "history_fields" else from_text(OPTIONS[name], str(value), f"--{name}")
            for name, value in texts.items()
            if value is not None
        }

    def settings(self) -> ShardSettings:
        """The settings of a shard in which cases run.

        Raises:
            OptionError: a value is not allowed.
        """
        settings = Settings(**{"allowed_lateness_seconds": 0.0} | self.given()).shard(())
        return replace(settings, action_topics=ActionTopics())  # ``checked_rules`` has checked them


Schema = Annotated[File | None, Parameter(help="JSON Schema of your events and profiles: names of fields are checked")]


def check(path: Path, /, *, schema: Schema = None, json: bool = False) -> int:
    """Read and compile every rule; shows every problem with file and line.

    0: all rules can be used; 1: one cannot; 2: the schema cannot be used.

    Args:
        path: rule file or directory.
        json: print JSON: the rules, the problems and the warnings.
    """
    checked = checked_rules(path, schema=schema)
    if json:
        rules = [
            {"name": loaded.rule.name, "version": loaded.rule.version, "file": str(loaded.file), "line": loaded.line}
            | {"cases": len(loaded.cases)}
            for loaded in checked.rules
        ]
        out_json({"rules": rules} | problem_documents(checked))
        return 1 if checked.problems else 0
    files = usable_rules(checked)
    if files is None:
        return 1
    for loaded in files.rules:
        out(f"ok  {loaded.rule.name}  version {loaded.rule.version}  {count_of(len(loaded.cases), 'case')}")
    return 0


def run_tests(
    path: Path,
    /,
    *,
    junit_xml: Annotated[File | None, Parameter(name="--junit-xml")] = None,
    json: bool = False,
    schema: Schema = None,
    history: History = History(),
) -> int:
    """Check every rule and run its cases.

    0: all passed; 1: a rule cannot be used, or a case failed; 2: an option cannot be used.

    Args:
        path: rule file or directory.
        junit_xml: write the results as JUnit XML.
        json: print JSON: the cases and what differs, the problems of the rules and the warnings.
    """
    if not json:
        return 1 if passing_rules(path, history, junit_xml, schema, to_publish=False) is None else 0
    files = checked_rules(path, to_publish=False, schema=schema)
    results = [] if files.problems else _run_cases(files, history.settings(), junit_xml)
    cases = [
        {"rule": result.rule, "case": result.located.case.name, "passed": result.passed}
        | {"file": str(result.located.file), "line": result.located.line, "differences": result.differences}
        for result in results
    ]
    failed = sum(not result.passed for result in results)
    out_json({"cases": cases, "failed": failed} | problem_documents(files))
    return 1 if failed or files.problems else 0


def passing_rules(
    path: Path,
    history: History,
    junit_xml: Path | None = None,
    schema: Path | None = None,
    *,
    to_publish: bool = True,
    rules_topic: str | None = None,
) -> RuleFiles | None:
    """Read rules, run their cases and print the results; None if a rule cannot be used or a case failed."""
    started = time.perf_counter()
    files = usable_rules(
        checked_rules(path, to_publish=to_publish, rules_topic=rules_topic, schema=schema, is_strict=not to_publish)
    )
    if files is None:
        return None
    settings = history.settings()
    results = _run_cases(files, settings, junit_xml)
    by_name = {loaded.rule.name: loaded for loaded in files.rules}
    for result in results:
        out(f"{'ok    ' if result.passed else 'FAILED'}  {result.rule}: {result.located.case.name}")
        if not result.passed:
            out(f"        {result.located.file}:{result.located.line}")
            for line in [*result.differences, *explained_failure(by_name[result.rule], result, settings, LuaEngines())]:
                out(*(f"        {part}" for part in line.split("\n")))
    failed = sum(not result.passed for result in results)
    counts = f"{count_of(len(files.rules), 'rule')}, {count_of(len(results), 'case')}, {failed} failed"
    out(f"{counts} in {time.perf_counter() - started:.2f} s")
    return None if failed else files


def _run_cases(files: RuleFiles, settings: ShardSettings, junit_xml: Path | None) -> list[CaseResult]:
    """Run every rule's cases, and write the report if one is wanted."""
    started = time.perf_counter()
    results = [result for loaded in files.rules for result in run_cases(loaded, settings, LuaEngines())]
    if junit_xml is not None:
        write_junit_xml(results, time.perf_counter() - started, junit_xml)
    return results


def print_schema() -> None:
    """Print the JSON Schema of rule files."""
    sys.stdout.write(rule_schema_json())


def new(folder: Path, /) -> None:
    """Write a first rule with cases.

    0: written; 2: it is there already, or cannot be written.

    Args:
        folder: directory; made if it is not there.
    """
    path = folder / "us_page_view.yaml"
    if path.exists():
        raise OptionError(f"{path}: is there already")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_NEW_RULE, "utf-8")
    out(f"wrote {path}; next: event-trigger rules test {folder}")
