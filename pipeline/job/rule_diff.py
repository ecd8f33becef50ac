"""What differs between two rules or sets of rules, as lines of text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import yaml

from transforms.domain.rules.diff import RuleChanges
from transforms.domain.rules.model import Rule

# What the line above the differences says already.
_LEFT_OUT: Final = {"name", "version"}
_CONTEXT_LINES: Final = 2


def change_lines(
    rules_before: Iterable[Rule], rules_after: Iterable[Rule], changes: RuleChanges, *, with_fields: bool = True
) -> Iterator[str]:
    """A line for each rule that changes, and below it what differs if ``with_fields``."""
    before, after = ({rule.name: rule for rule in rules} for rules in (rules_before, rules_after))
    yield from (f"+ {name}  version {after[name].version}" for name in changes.added)
    for name in changes.changed:
        yield f"~ {name}  version {before[name].version} -> {after[name].version}"
        if with_fields:
            yield from (f"    {line}" for line in difference_lines(before[name], after[name]))
    yield from (f"- {name}  version {before[name].version}" for name in changes.removed)


def difference_lines(before: Rule | None, after: Rule | None) -> Iterator[str]:
    """Lines for each field that differs: its name, then its lines with ``-`` and ``+``, Lua line by line."""
    old, new = _fields(before), _fields(after)
    for name in dict.fromkeys([*new, *old]):
        if old.get(name) == new.get(name):
            continue
        yield f"{name}:"
        sides = (_lines(old.get(name)), _lines(new.get(name)))
        for line in list(difflib.unified_diff(*sides, n=_CONTEXT_LINES, lineterm=""))[2:]:
            if not line.startswith("@@ "):
                yield f"  {line[0]} {line[1:]}"
            elif not line.startswith(("@@ -1,", "@@ -1 ", "@@ -0,")):
                yield "  …"


def _fields(rule: Rule | None) -> Mapping[str, Any]:
    if rule is None:
        return {}
    fields = rule.model_dump(mode="json", exclude_defaults=True)
    if rule.shared is not None:
        fields[f"group {rule.group}"] = rule.shared.model_dump(mode="json", exclude_defaults=True)
    return {name: value for name, value in fields.items() if name not in _LEFT_OUT}


def _lines(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return value.splitlines()
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).splitlines()
