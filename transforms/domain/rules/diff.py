"""Compares a new rule set with the live one and checks that changed rules have higher versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transforms.domain.rules.model import Rule


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """Names of rules, in the order of their set; ``problems`` are messages about versions that are too low."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether the sets differ."""
        return bool(self.added or self.removed or self.changed or self.problems)


def rule_changes(live: Iterable[Rule], wanted: Iterable[Rule]) -> RuleChanges:
    """Compare two rule sets; the names within a set are unique.

    The version is part of every action's id, so a rule whose meaning changes needs a higher version: otherwise
    receivers would take an action of the new rule for a repeat of the old one. Descriptions may change freely.
    Restoring an earlier form of a rule is also a change, and needs a new version.
    """
    before = {rule.name: rule for rule in live}
    after = {rule.name: rule for rule in wanted}
    changed, problems = [], []
    for name, new in after.items():
        old = before.get(name)
        if old is None or old == new:
            continue
        changed.append(name)
        fields = _differing_fields(old, new)
        if new.version < old.version:
            problems.append(f"rule {name!r}: version {new.version} is lower than the live {old.version}")
        elif new.version == old.version and fields:
            problems.append(f"rule {name!r}: {fields} differ from the live version {old.version}: raise the version")
    return RuleChanges(
        tuple(name for name in after if name not in before),
        tuple(name for name in before if name not in after),
        tuple(changed),
        tuple(problems),
    )


def reused_versions(earlier: Iterable[tuple[int, Iterable[Rule]]], wanted: Iterable[Rule]) -> tuple[str, ...]:
    """Find rules whose version had another meaning in an earlier set.

    A set that was rolled back is no longer live, but actions with its versions were sent.

    Args:
        earlier: number and rules of each earlier set.
        wanted: the new rules.

    Returns:
        A message for each such rule; it names the newest of the earlier sets.
    """
    newest_first = sorted(((number, tuple(rules)) for number, rules in earlier), key=lambda item: -item[0])
    problems = []
    for rule in wanted:
        for number, rules in newest_first:
            old = next((past for past in rules if (past.name, past.version) == (rule.name, rule.version)), None)
            if old is not None and (fields := _differing_fields(old, rule)):
                earlier_version = f"version {rule.version} in set {number}"
                problems.append(f"rule {rule.name!r}: {fields} differ from {earlier_version}: raise the version")
                break
    return tuple(problems)


def _differing_fields(old: Rule, new: Rule) -> str:
    """The fields, apart from the description, that make one rule mean something else than the other."""
    names = (name for name in Rule.model_fields if name != "description")
    return ", ".join(name for name in names if getattr(old, name) != getattr(new, name))
