"""Groups of rules: which rule is in which, and the Lua that says who gets nothing from one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from transforms.domain.rules.engine import Outcome, OutcomeKind, Program
from transforms.domain.rules.lua_tokens import all_tokens
from transforms.domain.rules.model import Group, Groups, Rule, RuleError

# In place of a group's name: all rules, those without a group, too.
EVERYTHING: Final = "*"
UNLESS: Final = "unless"


def in_groups(rules: Iterable[Rule], groups: Mapping[str, Group]) -> tuple[Rule, ...]:
    """The rules, each with its group.

    Raises:
        RuleError: a rule names a group that there is not.
    """
    return tuple(_in_group(rule, groups) for rule in rules)


def _in_group(rule: Rule, groups: Mapping[str, Group]) -> Rule:
    if rule.group is None:
        return rule
    if rule.group not in groups:
        raise RuleError(f"rule {rule.name!r}: {unknown_group(rule.group, groups)}")
    return rule.in_group(groups[rule.group])


def unknown_group(name: str, groups: Iterable[str]) -> str:
    """What is wrong with a rule that names a group that there is not."""
    known = ", ".join(sorted(groups)) or "none: there are no groups"
    return f"group is {name!r}, allowed: {known}"


def groups_of(rules: Iterable[Rule]) -> Groups:
    """The groups that rules name, by name."""
    return {rule.group: rule.shared for rule in rules if rule.group is not None and rule.shared is not None}


def unless_programs(groups: Mapping[str, Group]) -> dict[str, Program]:
    """The program of each group with an ``unless``, by the group's name."""
    return {
        name: Program(f"{name}.{UNLESS}", unless_value(group.unless), wants_value=True)
        for name, group in groups.items()
        if group.unless is not None
    }


def unless_value(source: str) -> str:
    """An ``unless`` as an expression with a value, which no event runs; its lines keep their numbers."""
    is_body = any(token.text == "return" for token in all_tokens(source))
    return f"not not (function() {'' if is_body else 'return '}{source}\nend)()"


def unless_holds(outcome: Outcome | None) -> tuple[bool, str | None]:
    """Whether an ``unless`` holds, and the message of its error."""
    if outcome is None or outcome.kind is not OutcomeKind.VALUE:
        return False, "no result" if outcome is None else outcome.text or outcome.kind.value
    return outcome.text.endswith("true"), None
