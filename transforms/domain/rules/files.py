"""Rule files: YAML in, checked rules out, and for what is wrong the file, the line and the field.

A file ``*.yaml`` holds rules, one a document; ``*_test.yaml`` holds further cases of a rule. A filter may lie in a Lua
file beside. Every problem is found, not the first alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from transforms.domain.base.checked_documents import Problem, documents, validated
from transforms.domain.base.models import StrictModel
from transforms.domain.base.yaml_documents import Document
from transforms.domain.base.yaml_documents import Path as FieldPath
from transforms.domain.rules.cases import Case
from transforms.domain.rules.engine import SourceChecker
from transforms.domain.rules.filters import lua_problems
from transforms.domain.rules.model import Rule, RuleError

TEST_SUFFIX: Final = "_test"
# Of a rule file, beside the rule's own.
_FILE_FIELDS: Final = ("filter_file", "tests")


class _CasesOf(StrictModel):
    """A document of a ``*_test.yaml`` file."""

    rule: str
    tests: list[Case]


@dataclass(frozen=True, slots=True)
class LocatedCase:
    """A case and where it is written."""

    case: Case
    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class LoadedRule:
    """A rule, where it is written, and its cases. ``lua`` has file and first line of each of its Lua fields."""

    rule: Rule
    file: Path
    line: int
    lua: dict[str, tuple[Path, int]]
    cases: tuple[LocatedCase, ...] = ()

    def locate(self, lua_field: str, message: str) -> tuple[Path, int, str]:
        """File, line and text of a Lua message, which begins with ``chunk:line:``."""
        file, first_line = self.lua[lua_field]
        found = re.match(r"[^:\n]*:(\d+): ", message)
        if found is None:
            return file, first_line, message
        return file, first_line + int(found[1]) - 1, message[found.end() :]


@dataclass(slots=True)
class RuleFiles:
    """What rule files hold: the rules that are good, and every problem."""

    rules: list[LoadedRule] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def load_rules(path: Path, lua: SourceChecker) -> tuple[Rule, ...]:
    """The rules of a YAML file, or of every ``*.yaml`` and ``*.yml`` file of a directory, sorted by file name.

    Raises:
        RuleError: the path is missing or empty, or something in it is no good rule; the first problem found.
    """
    found = read_rule_files(path, lua)
    if found.problems:
        more = len(found.problems) - 1
        rest = f" (and {more} more: see `python -m pipeline rules check {path}`)" if more else ""
        raise RuleError(f"{found.problems[0]}{rest}")
    return tuple(loaded.rule for loaded in found.rules)


def read_rule_files(path: Path, lua: SourceChecker) -> RuleFiles:
    """All rules and all problems of a file or directory; see ``load_rules``."""
    found = RuleFiles()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
    elif path.is_file():
        files = [path, *(file for file in (_test_file(path),) if file.is_file())]
    else:
        found.problems.append(Problem(path, None, "no such file or directory"))
        return found
    rule_files = [file for file in files if not file.stem.endswith(TEST_SUFFIX)]
    for file in rule_files:
        for document in documents(file, found.problems):
            _read_rule(file, document, found, lua)
    for file in files:
        if file not in rule_files:
            _read_cases(file, found)
    if not found.rules and not found.problems:
        found.problems.append(Problem(path, None, "no rule in it, allowed are *.yaml files with at least one"))
    return found


def _test_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}{TEST_SUFFIX}{path.suffix}")


def _read_rule(file: Path, document: Document, found: RuleFiles, lua_checker: SourceChecker) -> None:
    value, problems = document.value, found.problems
    if not isinstance(value, dict):
        problems.append(Problem(file, document.line, f"a rule is a mapping, this is a {type(value).__name__}"))
        return
    before = len(problems)
    lua = _lua_places(file, document)
    if "filter_file" in value:
        value = _with_filter_file(file, document, lua, problems)
        if value is None:
            return
    given_cases = value.get("tests", [])
    fields = {key: given for key, given in value.items() if key != "tests"}
    rule = validated(Rule, file, document, fields, problems, more_fields=_FILE_FIELDS)
    cases = _cases(file, document, given_cases, problems)
    if not isinstance(rule, Rule):
        return
    loaded = LoadedRule(rule, file, document.line, lua, tuple(cases))
    for lua_field, message in lua_problems(rule, lua_checker):
        at, line, text = loaded.locate(lua_field, message)
        problems.append(Problem(at, line, f"{lua_field} {text}"))
    taken = next((other for other in found.rules if other.rule.name == rule.name), None)
    if taken is not None:
        where = f"{taken.file}:{taken.line}"
        detail = f"name {rule.name!r} is taken by {where}; names are unique"
        problems.append(Problem(file, document.line_of(("name",)), detail))
    if len(problems) == before:
        found.rules.append(loaded)


def _lua_places(file: Path, document: Document) -> dict[str, tuple[Path, int]]:
    paths: tuple[FieldPath, ...] = (
        ("filter",),
        ("cooldown", "key"),
        ("sequence", "followed_by"),
        ("sequence", "not_followed_by"),
    )
    return {
        ".".join(map(str, path)): (file, document.text_lines[path]) for path in paths if path in document.text_lines
    }


def _with_filter_file(
    file: Path, document: Document, lua: dict[str, tuple[Path, int]], problems: list[Problem]
) -> dict[str, Any] | None:
    """The document with the text of the Lua file as its filter."""
    name, line = document.value["filter_file"], document.line_of(("filter_file",))
    if "filter" in document.value:
        problems.append(Problem(file, line, "filter and filter_file are both given, allowed is one"))
        return None
    shown = f"filter_file is {name!r}: "
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.lua", name):
        problems.append(Problem(file, line, f"{shown}allowed is the name of a .lua file beside this one"))
        return None
    source = file.parent / name
    if not source.is_file():
        problems.append(Problem(file, line, f"{shown}no such file beside it"))
        return None
    try:
        text = source.read_bytes().decode()
    except (UnicodeDecodeError, OSError) as error:
        problems.append(Problem(file, line, f"{shown}not UTF-8: {error}"))
        return None
    lua["filter"] = (source, 1)
    rest = {key: value for key, value in document.value.items() if key != "filter_file"}
    return rest | {"filter": text}


def _read_cases(file: Path, found: RuleFiles) -> None:
    for document in documents(file, found.problems):
        value = document.value
        given = value.get("tests", []) if isinstance(value, dict) else []
        before = len(found.problems)
        cases = _cases(file, document, given, found.problems)
        if len(found.problems) > before or validated(_CasesOf, file, document, value, found.problems) is None:
            continue
        number = next((n for n, one in enumerate(found.rules) if one.rule.name == value["rule"]), None)
        if number is None:
            # Where the rule itself is no good, that is the problem to show.
            if not found.problems:
                detail = f"rule is {value['rule']!r}: no rule of this name in the files beside"
                found.problems.append(Problem(file, document.line_of(("rule",)), detail))
            continue
        found.rules[number] = replace(found.rules[number], cases=(*found.rules[number].cases, *cases))


def _cases(file: Path, document: Document, given: Any, problems: list[Problem]) -> list[LocatedCase]:
    if not isinstance(given, list):
        problems.append(Problem(file, document.line_of(("tests",)), "tests is a list of cases"))
        return []
    cases = []
    for number, one in enumerate(given):
        path: FieldPath = ("tests", number)
        case = validated(Case, file, document, one, problems, path)
        if isinstance(case, Case):
            cases.append(LocatedCase(case, file, document.line_of(path)))
    return cases
