"""Groups in rule files: documents ``groups: {NAME: …}``, in a file of their own or beside rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from transforms.domain.base.checked_documents import Problem, validated
from transforms.domain.base.models import StrictModel
from transforms.domain.base.yaml_documents import Document
from transforms.domain.rules.engine import SourceChecker
from transforms.domain.rules.groups import UNLESS, unless_value
from transforms.domain.rules.lua_tokens import tokens_of
from transforms.domain.rules.model import Group, Groups

# Read for a single rule file, too.
GROUPS_FILE: Final = "groups.yaml"
# What an ``unless`` may read: it is also asked when there is no event.
_READS: Final = ("user", "enrichment")
_OF_EVENTS: Final = ("event", "visit", "history", "history_since", "local_time", "count", "last", "distinct")


class GroupsDocument(StrictModel):
    """A document of a rule file that declares groups."""

    groups: Groups = Field(min_length=1, description="what rules share, by name of the group")


@dataclass(frozen=True, slots=True)
class LoadedGroup:
    """A group with its file and line."""

    group: Group
    file: Path
    line: int


def is_groups_document(value: Any) -> bool:
    """Whether a document declares groups and is no rule."""
    return isinstance(value, dict) and "groups" in value and "filter" not in value and "actions" not in value


def read_groups(
    file: Path, document: Document, groups: dict[str, LoadedGroup], problems: list[Problem], lua: SourceChecker
) -> None:
    """Add the groups of a document to ``groups``, and what is wrong with them to ``problems``."""
    found = validated(GroupsDocument, file, document, document.value, problems)
    for name, group in (found.groups if found is not None else {}).items():
        at = ("groups", name)
        if name in groups:
            taken = f"{groups[name].file}:{groups[name].line}"
            detail = f"group {name!r} is taken by {taken}; names are unique"
            problems.append(Problem(file, document.line_of(at), detail))
            continue
        line = document.line_of((*at, "unless"))
        problems += [Problem(file, line, f"groups.{name}.unless: {text}") for text in unless_problems(group, lua)]
        groups[name] = LoadedGroup(group, file, document.line_of(at))


def unless_problems(group: Group, lua: SourceChecker) -> Iterator[str]:
    """What is wrong with a group's ``unless``."""
    if group.unless is None:
        return
    check = lua.check(group.unless, UNLESS)
    problem = check.problem or lua.check(unless_value(group.unless), UNLESS).problem
    if problem is not None:
        yield f"does not compile: {problem}"
        return
    names = [token.text for token in tokens_of(group.unless)]
    for name in (*check.unknown_names, *(name for name in _OF_EVENTS if _reads(names, name))):
        yield f"reads {name!r}, allowed: {', '.join(_READS)}"


def _reads(names: list[str], name: str) -> bool:
    """Whether a name is read that is not a field of something."""
    return any(text == name and (at == 0 or names[at - 1] not in (".", ":")) for at, text in enumerate(names))
