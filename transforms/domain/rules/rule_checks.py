"""Checks of rules beyond what makes them valid: they find what runs, but not as its author means it."""

from __future__ import annotations

from transforms.domain.base.checked_documents import Problem
from transforms.domain.rules import placeholders
from transforms.domain.rules.field_checks import Cases, findings
from transforms.domain.rules.field_schema import FieldSchema
from transforms.domain.rules.files import LoadedRule, RuleFiles
from transforms.domain.rules.lua_hints import traps
from transforms.domain.rules.lua_reads import faults
from transforms.domain.rules.model import DebugAction
from transforms.domain.rules.programs import programs_of


def examine(files: RuleFiles, schema: FieldSchema | None = None) -> None:
    """Add to rules' ``refused_next`` and ``warnings``; ``schema`` is a team's own."""
    schema = FieldSchema() if schema is None else schema
    rules = [*files.rules, *files.broken]
    cases = Cases(located.case for loaded in rules for located in loaded.cases)
    for loaded in rules:
        _check_fields(files, loaded, schema, cases)
        _check_placeholders(files, loaded)
        _check_lua(files, loaded, any(loaded is other for other in files.rules))
        if not loaded.cases:
            detail = f"{loaded.rule.name} has no test: a case under tests shows that it fires where it should"
            files.warnings.append(Problem(loaded.file, loaded.line, detail))


def _check_fields(files: RuleFiles, loaded: LoadedRule, schema: FieldSchema, cases: Cases) -> None:
    for finding in findings(loaded.rule, schema, cases):
        name = ".".join(map(str, finding.at))
        file, line = loaded.file, loaded.document.line_of(finding.at)
        if finding.line is not None and name in loaded.lua:
            file, first = loaded.lua[name]
            line = first + finding.line - 1
        problem = Problem(file, line, f"{name} {finding.message}")
        (files.refused_next if finding.is_certain else files.warnings).append(problem)


def _check_lua(files: RuleFiles, loaded: LoadedRule, is_valid: bool) -> None:
    for name, source in programs_of(loaded.rule):
        for line, message in traps(source):
            file, at, text = loaded.locate(name, f"{name}:{line}: {message}")
            files.warnings.append(Problem(file, at, f"{name}: {text}"))
        # Of Lua that does not compile its own message is the one to show.
        for line, message in faults(source) if is_valid else ():
            file, at, text = loaded.locate(name, f"{name}:{line}: {message}")
            files.refused_next.append(Problem(file, at, f"{name}: {text}"))


def _check_placeholders(files: RuleFiles, loaded: LoadedRule) -> None:
    for number, action in enumerate(loaded.rule.actions):
        if isinstance(action, DebugAction) or action.body is None:
            continue
        at = ("actions", number, "body")
        for path, message in placeholders.problems(action.body, at):
            detail = f"{'.'.join(map(str, path))}: {message}"
            files.refused_next.append(Problem(loaded.file, loaded.document.line_of(path), detail))
        for path, text in placeholders.foreign(action.body, at):
            detail = (
                f"{'.'.join(map(str, path))}: {text!r} is sent as it is, a placeholder is written ${{event.event_name}}"
            )
            files.warnings.append(Problem(loaded.file, loaded.document.line_of(path), detail))
