"""Reading rule files for commands: problems go to standard error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.console import complain, say, warn
from pipeline.job.publishing import REFUSED_NEXT
from pipeline.launch.options import Settings
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.base.checked_documents import Problem
from transforms.domain.rules.action_topics import ActionTopics
from transforms.domain.rules.field_schema import read_schema
from transforms.domain.rules.files import RuleFiles, read_rule_files
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.rule_checks import examine
from transforms.domain.simulation.case_runner import dry_call


def usable_rules(files: RuleFiles) -> RuleFiles | None:
    """Print the warnings and problems of rule files; None if there is a problem."""
    for problem in files.warnings:
        warn(str(problem))
    for problem in files.problems:
        complain(str(problem))
    if files.problems:
        say(count_of(len(files.problems), "problem"))
    return None if files.problems else files


def checked_rules(
    path: Path,
    *,
    to_publish: bool = True,
    rules_topic: str | None = None,
    schema: Path | None = None,
    is_strict: bool = True,
) -> RuleFiles:
    """Read and check rule files.

    Args:
        path: rule file or directory.
        to_publish: a rule that writes a topic of jobs is a problem, of their default names and ``rules_topic``, and one
            that fails on an event without further fields a warning.
        rules_topic: the topic of rule sets.
        schema: a JSON Schema of a team's own fields of events and profiles.
        is_strict: whether what live sets may have and the next release refuses is a problem, too; else a warning.

    Raises:
        SchemaError: the schema cannot be used.
    """
    team = None if schema is None else read_schema(schema)
    files = read_rule_files(path, LuaEngines())
    if to_publish:
        refuse_own_topics(files, [] if rules_topic is None else [rules_topic])
    examine(files, team)
    if is_strict:
        files.problems += files.refused_next
    else:
        files.warnings += [replace(problem, detail=f"{problem.detail}{REFUSED_NEXT}") for problem in files.refused_next]
    if to_publish:
        for loaded in files.rules:
            message = dry_call(loaded, LuaEngines())
            if message is not None:
                # A warning only: a rule may rely on fields that all events of its kind have.
                warn(f"{loaded.rule.name} on an event without further fields: {message}")
    return files


def problem_documents(files: RuleFiles) -> dict[str, Any]:
    """The problems and the warnings for programs."""
    found = {"problems": files.problems, "warnings": files.warnings}
    return {
        kind: [{"file": str(problem.file), "line": problem.line, "problem": problem.detail} for problem in problems]
        for kind, problems in found.items()
    }


def refuse_own_topics(files: RuleFiles, more: Sequence[str]) -> None:
    """Add a problem for each rule that writes a topic of jobs, of their default names and ``more``."""
    topics = ActionTopics((*Settings().own_topics.values(), *more))
    for loaded in files.rules:
        try:
            topics.check([loaded.rule])
        except RuleError as error:
            files.problems.append(Problem(loaded.file, loaded.line, str(error)))


def count_of(number: int, noun: str) -> str:
    """The number with its noun in singular or plural, as ``2 rules``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
