"""Reads rule files (YAML) and returns checked rules. Every problem is reported with file, line and field.

A file ``*.yaml`` holds one rule a document, ``*_test.yaml`` holds further cases of a rule. A filter may be in a Lua
file in the same directory.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from transforms.domain.base.checked_documents import FileError, Problem, documents, read_file, validated
from transforms.domain.base.models import StrictModel
from transforms.domain.base.yaml_documents import Document, cut_message
from transforms.domain.base.yaml_documents import Path as FieldPath
from transforms.domain.rules.cases import Case
from transforms.domain.rules.engine import SourceChecker
from transforms.domain.rules.group_files import GROUPS_FILE, LoadedGroup, is_groups_document, read_groups
from transforms.domain.rules.groups import in_groups, unknown_group
from transforms.domain.rules.lua_hints import NEVER
from transforms.domain.rules.lua_problems import lua_problems, never_returning
from transforms.domain.rules.lua_source import MAX_LUA_BYTES
from transforms.domain.rules.model import Group, Rule, RuleError
from transforms.domain.rules.programs import path_of
from transforms.domain.rules.sequence_model import MOST_STEPS

TEST_SUFFIX: Final = "_test"
_SUFFIXES: Final = (".yaml", ".yml")
_MOST_LOOKED_AT: Final = 1000
# Fields of a rule file in addition to those of the rule.
_FILE_FIELDS: Final = ("filter_file", "tests")


class _CasesOf(StrictModel):
    """A document of a ``*_test.yaml`` file."""

    rule: str
    tests: list[Case]


@dataclass(frozen=True, slots=True)
class LocatedCase:
    """A case with its file and line."""

    case: Case
    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class LoadedRule:
    """A rule with its file, document and cases. ``lua`` has file and first line of each of its Lua fields.

    ``peers`` are the other rules of its group: what they do decides what this one does.
    """

    rule: Rule
    file: Path
    document: Document
    lua: dict[str, tuple[Path, int]]
    cases: tuple[LocatedCase, ...] = ()
    peers: tuple[Rule, ...] = ()

    @property
    def line(self) -> int:
        """The first line of the rule."""
        return self.document.line

    def locate(self, lua_field: str, message: str) -> tuple[Path, int, str]:
        """Convert a Lua message, which begins with ``chunk:line:``, to file, line and text."""
        file, first_line = self.lua[lua_field]
        prefix = re.match(r"[^:\n]*:(\d+): ", message)
        if prefix is None:
            return file, first_line, message
        return file, first_line + int(prefix[1]) - 1, message[prefix.end() :]


@dataclass(slots=True)
class RuleFiles:
    """The valid rules of rule files, and what was found in them.

    Attributes:
        rules: the valid rules.
        broken: rules whose fields are valid, but not their Lua or their name.
        problems: what cannot be used.
        refused_next: what earlier releases accepted, and live sets may have: check refuses it, publish warns of it for
            one release.
        warnings: what may be wrong.
        groups: the groups that rules share, by name.
    """

    rules: list[LoadedRule] = field(default_factory=list)
    broken: list[LoadedRule] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    refused_next: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    groups: dict[str, LoadedGroup] = field(default_factory=dict)


def load_rules(path: Path, lua: SourceChecker) -> tuple[Rule, ...]:
    """Read the rules of a YAML file, or of every ``*.yaml`` and ``*.yml`` file of a directory, by file name.

    Raises:
        RuleError: the path is missing or has no rules, or a rule is not valid; the message has the first problem.
    """
    result = read_rule_files(path, lua)
    if result.problems:
        more = len(result.problems) - 1
        rest = f" (and {more} more: see `event-trigger rules check {path}`)" if more else ""
        raise RuleError(f"{result.problems[0]}{rest}")
    return tuple(loaded.rule for loaded in result.rules)


def read_rule_files(path: Path, lua: SourceChecker, live_groups: Mapping[str, Group] | None = None) -> RuleFiles:
    """Read all rules and all problems of a file or directory; see ``load_rules``.

    ``live_groups`` are groups that rules may name besides those of the files, as when one rule of a live set is edited.
    """
    result = RuleFiles()
    passed_over: list[str] = []
    if path.is_dir():
        entries = sorted(path.iterdir())
        files = [file for file in entries if is_rule_file(file)]
        passed_over = [found for found in map(_passed_over, entries) if found]
        result.warnings += [
            Problem(path, None, f"{found}; allowed are *.yaml files beside each other") for found in passed_over
        ]
    elif path.exists():
        beside = {path.with_name(GROUPS_FILE), _test_file(path)} - {path}
        files = [path, *sorted(file for file in beside if os.path.lexists(file))]
    else:
        result.problems.append(Problem(path, None, "no such file or directory"))
        return result
    paths_of_rules = [file for file in files if not file.stem.endswith(TEST_SUFFIX)]
    for file in paths_of_rules:
        for document in documents(file, result.problems, file.parent):
            if is_groups_document(document.value):
                read_groups(file, document, result.groups, result.problems, lua)
            else:
                _read_rule(file, document, result, lua)
    _find_groups(result, live_groups or {})
    for file in files:
        if file not in paths_of_rules:
            _read_cases(file, result)
    if not result.rules and not result.problems:
        detail = "; ".join(["no rule in it, allowed are *.yaml files with at least one", *passed_over])
        result.problems.append(Problem(path, None, detail))
    return result


def _find_groups(result: RuleFiles, live_groups: Mapping[str, Group]) -> None:
    """Give each rule its group and the other rules of the group."""
    groups = {**live_groups, **{name: loaded.group for name, loaded in result.groups.items()}}
    for number, loaded in enumerate(result.rules):
        name = loaded.rule.group
        if name is not None and name not in groups:
            line = loaded.document.line_of(("group",))
            result.problems.append(Problem(loaded.file, line, unknown_group(name, groups)))
        elif name is not None:
            (rule,) = in_groups([loaded.rule], groups)
            result.rules[number] = replace(loaded, rule=rule)
    for number, loaded in enumerate(result.rules):
        if loaded.rule.shared is not None:
            others = [other.rule for other in result.rules if other.rule.group == loaded.rule.group]
            result.rules[number] = replace(
                loaded, peers=tuple(other for other in others if other.name != loaded.rule.name)
            )
    named = {loaded.rule.group for loaded in (*result.rules, *result.broken)}
    for name, found in result.groups.items():
        if name not in named:
            detail = f"group {name!r} has no rule: a set has the groups that its rules name"
            result.warnings.append(Problem(found.file, found.line, detail))


def is_rule_file(file: Path) -> bool:
    """Whether the file of a directory is read; not Emacs's lock files (``.#x.yaml``) nor macOS's (``._x.yaml``)."""
    return file.suffix in _SUFFIXES and not file.name.startswith((".#", "._"))


def _passed_over(entry: Path) -> str | None:
    """Why what looks like rules in a folder is not read; None for anything else."""
    if entry.name.startswith((".", "__")) or is_rule_file(entry):
        return None
    if entry.suffix.lower() in _SUFFIXES:
        return f"{entry.name} is not read: its ending has capital letters"
    inner = itertools.islice(entry.rglob("*"), _MOST_LOOKED_AT) if entry.is_dir() and not entry.is_symlink() else ()
    if any(file.suffix.lower() in _SUFFIXES for file in inner):
        return f"the folder {entry.name} in it has rules, which are not read"
    return None


def _test_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}{TEST_SUFFIX}{path.suffix}")


def _read_rule(file: Path, document: Document, result: RuleFiles, lua_checker: SourceChecker) -> None:
    value, problems = document.value, result.problems
    _note_cuts(file, document, result)
    if not isinstance(value, dict):
        problems.append(Problem(file, document.line, f"a rule is a mapping, this is a {type(value).__name__}"))
        return
    before = len(problems)
    lua = _lua_places(file, document)
    if "filter_file" in value:
        try:
            lua_file, text = _filter_file(file, value)
        except ValueError as error:
            problems.append(Problem(file, document.line_of(("filter_file",)), str(error)))
            return
        lua["filter"] = (lua_file, 1)
        value = {**value, "filter": text}
    fields = {key: given for key, given in value.items() if key not in _FILE_FIELDS}
    rule = validated(Rule, file, document, fields, problems, more_fields=_FILE_FIELDS)
    cases = _cases(file, document, value.get("tests", []), problems)
    if not isinstance(rule, Rule):
        return
    loaded = LoadedRule(rule, file, document, lua, tuple(cases))
    for lua_field, message in lua_problems(rule, lua_checker):
        at, line, text = loaded.locate(lua_field, message)
        cut = document.cuts.get(path_of(lua_field))
        problems.append(Problem(at, line, f"{lua_field} {text}{'' if cut is None else f'; {cut_message(cut[1])}'}"))
    for lua_field in never_returning(rule, lua_checker):
        at, line, _ = loaded.locate(lua_field, "")
        result.refused_next.append(Problem(at, line, f"{lua_field} {NEVER} of its own"))
    taken = next((other for other in result.rules if other.rule.name == rule.name), None)
    if taken is not None:
        where = f"{taken.file}:{taken.line}"
        detail = f"name {rule.name!r} is taken by {where}; names are unique"
        problems.append(Problem(file, document.line_of(("name",)), detail))
    (result.rules if len(problems) == before else result.broken).append(loaded)


def _note_cuts(file: Path, document: Document, result: RuleFiles) -> None:
    for path, (line, cut) in document.cuts.items():
        name = ".".join(map(str, path))
        result.refused_next.append(
            Problem(file, line, f"{name}: {cut_message(cut)}; a comment that is meant begins with '# '")
        )


def _lua_places(file: Path, document: Document) -> dict[str, tuple[Path, int]]:
    paths: tuple[FieldPath, ...] = (
        ("filter",),
        ("cooldown", "key"),
        ("sequence", "followed_by"),
        ("sequence", "not_followed_by"),
        *(
            ("sequence", "steps", number, name)
            for number in range(MOST_STEPS)
            for name in ("followed_by", "not_followed_by")
        ),
    )
    return {
        ".".join(map(str, path)): (file, document.text_lines[path]) for path in paths if path in document.text_lines
    }


def _filter_file(file: Path, value: dict[str, Any]) -> tuple[Path, str]:
    """The Lua file that a rule names, and its text.

    Raises:
        ValueError: the name or the file cannot be used.
    """
    name = value["filter_file"]
    if "filter" in value:
        raise ValueError("filter and filter_file are both given, allowed is one")
    shown = f"filter_file is {name!r}: "
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.lua", name):
        raise ValueError(f"{shown}allowed is the name of a .lua file beside this one")
    lua_file = file.parent / name
    if not os.path.lexists(lua_file):
        raise ValueError(f"{shown}no such file beside it")
    try:
        # Three bytes more than a rule's Lua may have: a byte order mark.
        return lua_file, read_file(lua_file, MAX_LUA_BYTES + 3, file.parent).decode("utf-8-sig")
    except FileError as error:
        raise ValueError(f"{shown}{error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown}not UTF-8: {error}") from None


def _read_cases(file: Path, result: RuleFiles) -> None:
    for document in documents(file, result.problems, file.parent):
        _note_cuts(file, document, result)
        value = document.value
        given = value.get("tests", []) if isinstance(value, dict) else []
        before = len(result.problems)
        cases = _cases(file, document, given, result.problems)
        if len(result.problems) > before or validated(_CasesOf, file, document, value, result.problems) is None:
            continue
        number = next((n for n, loaded in enumerate(result.rules) if loaded.rule.name == value["rule"]), None)
        if number is None:
            # If the rule itself is not valid, its own problem is the one to show.
            if not result.problems:
                detail = f"rule is {value['rule']!r}: no rule of this name in the files beside"
                result.problems.append(Problem(file, document.line_of(("rule",)), detail))
            continue
        result.rules[number] = replace(result.rules[number], cases=(*result.rules[number].cases, *cases))


def _cases(file: Path, document: Document, given: Any, problems: list[Problem]) -> list[LocatedCase]:
    if not isinstance(given, list):
        problems.append(Problem(file, document.line_of(("tests",)), "tests is a list of cases"))
        return []
    cases = []
    for number, item in enumerate(given):
        path: FieldPath = ("tests", number)
        case = validated(Case, file, document, item, problems, path)
        if isinstance(case, Case):
            cases.append(LocatedCase(case, file, document.line_of(path)))
    return cases
