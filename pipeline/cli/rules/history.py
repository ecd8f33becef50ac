"""``event-trigger rules history``: which published set changed which rules."""

from __future__ import annotations

from typing import Any

from pipeline.cli.parameters import Brokers, Name, Topic
from pipeline.cli.rules.rule_diff import change_lines
from pipeline.console import did_you_mean, out, out_json, warn
from pipeline.errors import OptionError
from pipeline.kafka.rules_topic import RulesTopic
from pipeline.timestamps import shown_time
from transforms.domain.rules.diff import rule_changes
from transforms.domain.rules.model import Rule
from transforms.domain.rules.sets import RuleSet


def history(*, rules_topic: Topic, brokers: Brokers = Brokers(), rule: Name | None = None, json: bool = False) -> None:
    """Show which published set changed which rules, when, by whom and why; the newest first.

    0: shown; 2: an option or topic cannot be used.

    Args:
        rules_topic: topic of rule sets.
        rule: only the sets that changed this rule, and how its fields changed.
        json: print JSON.
    """
    published = RulesTopic(rules_topic, brokers.config()).read()
    for problem in published.unreadable:
        warn(problem)
    names = sorted({name for rule_set in published.sets for name in rule_set.versions})
    if rule is not None and rule not in names:
        hint = did_you_mean(rule, names) or f"allowed: {', '.join(names) or 'none, the topic has no set'}"
        raise OptionError(f"--rule is {rule!r}, {hint}")
    steps = []
    for before, after in zip((None, *published.sets), published.sets, strict=False):
        rules = _only(after, rule)
        changes = rule_changes(_only(before, rule), rules)
        if changes or rule is None:
            steps.append((before, after, changes))
    if json:
        sets = [
            set_document(after) | {name: getattr(changes, name) for name in ("added", "changed", "removed")}
            for _, after, changes in steps
        ]
        out_json({"topic": rules_topic, "sets": sets, "unreadable": published.unreadable})
    elif not steps:
        out(f"{rules_topic} has no set")
    else:
        for before, after, changes in reversed(steps):
            out(f"{set_line(after)}{'  the oldest that is kept' if before is None else ''}")
            lines = change_lines(_only(before, rule), _only(after, rule), changes, with_fields=rule is not None)
            out(*(f"  {line}" for line in lines))


def _only(rule_set: RuleSet | None, name: str | None) -> list[Rule]:
    """The rules of a set, or the one with a name."""
    return [rule for rule in (rule_set.rules if rule_set else ()) if name in (None, rule.name)]


def set_line(rule_set: RuleSet) -> str:
    """Number, time and author of a set, and its note."""
    note = f"  ({rule_set.note})" if rule_set.note else ""
    return f"set {rule_set.number}  {shown_time(rule_set.published_ms)}  {rule_set.by}{note}"


def set_document(rule_set: RuleSet) -> dict[str, Any]:
    """The same for programs, with the versions of its rules."""
    return {
        "number": rule_set.number,
        "published": rule_set.published_ms,
        "by": rule_set.by,
        "note": rule_set.note,
        "rules": rule_set.versions,
    }
