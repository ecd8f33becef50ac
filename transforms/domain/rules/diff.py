"""What a new rule set changes in a live one, and whether its versions say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transforms.domain.rules.model import Rule


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """Rules by name, each in the order of the set that has it; ``problems`` are versions that cannot be."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return bool(self.added or self.removed or self.changed or self.problems)


def rule_changes(live: Iterable[Rule], wanted: Iterable[Rule]) -> RuleChanges:
    """Compare two rule sets, whose names are unique.

    The version is part of every action's id, so that what means something else needs a higher one: otherwise an action
    of the new meaning could pass for a repeat of the old. Descriptions are for people and may change freely. Taking a
    rule back to what it was is a change like any other, and needs a version of its own.
    """
    before = {rule.name: rule for rule in live}
    after = {rule.name: rule for rule in wanted}
    changed, problems = [], []
    for name, new in after.items():
        old = before.get(name)
        if old is None or old == new:
            continue
        changed.append(name)
        if new.version < old.version:
            problems.append(f"rule {name!r}: version {new.version} is lower than the live {old.version}")
        elif new.version == old.version and _meaning(new) != _meaning(old):
            fields = ", ".join(_differing(old, new))
            problems.append(f"rule {name!r}: {fields} differ from the live version {old.version}: raise the version")
    return RuleChanges(
        tuple(name for name in after if name not in before),
        tuple(name for name in before if name not in after),
        tuple(changed),
        tuple(problems),
    )


def reused_versions(earlier: Iterable[tuple[int, Iterable[Rule]]], wanted: Iterable[Rule]) -> tuple[str, ...]:
    """Rules whose version had another meaning in an earlier set, given as number and rules; the last such set is named.

    A set that was rolled back is no longer live, but actions with its versions went out.
    """
    past = sorted(((number, tuple(rules)) for number, rules in earlier), key=lambda one: -one[0])
    problems = []
    for rule in wanted:
        for number, rules in past:
            old = next((one for one in rules if (one.name, one.version) == (rule.name, rule.version)), None)
            if old is not None and _meaning(old) != _meaning(rule):
                fields = ", ".join(_differing(old, rule))
                was = f"version {rule.version} in set {number}"
                problems.append(f"rule {rule.name!r}: {fields} differ from {was}: raise the version")
                break
    return tuple(problems)


def _meaning(rule: Rule) -> Rule:
    return rule.model_copy(update={"description": ""})


def _differing(old: Rule, new: Rule) -> list[str]:
    names = (name for name in Rule.model_fields if name != "description")
    return [name for name in names if getattr(old, name) != getattr(new, name)]
