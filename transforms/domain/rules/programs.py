"""The Lua texts of a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from transforms.domain.rules.model import Rule

FILTER: Final = "filter"
RECHECK: Final = "recheck"
COOLDOWN_KEY: Final = "cooldown.key"
FOLLOWED_BY: Final = "sequence.followed_by"
NOT_FOLLOWED_BY: Final = "sequence.not_followed_by"
SEQUENCE: Final = "sequence."  # with which the names of all conditions of steps begin
_STEPS: Final = "sequence.steps."


def programs_of(rule: Rule) -> list[tuple[str, str]]:
    """Field and source of each of a rule's Lua texts, the filter first."""
    cooldown, sequence = rule.cooldown, rule.sequence
    texts = [
        (FILTER, rule.filter),
        (FOLLOWED_BY, sequence and sequence.followed_by),
        (NOT_FOLLOWED_BY, sequence and sequence.not_followed_by),
        *_of_steps(rule),
        (COOLDOWN_KEY, cooldown and cooldown.key),
        (RECHECK, rule.recheck),
    ]
    return [(name, text) for name, text in texts if text]


def _of_steps(rule: Rule) -> Iterator[tuple[str, str | None]]:
    for number, step in enumerate((rule.sequence.steps if rule.sequence else None) or ()):
        yield f"{_STEPS}{number}.followed_by", step.followed_by
        yield f"{_STEPS}{number}.not_followed_by", step.not_followed_by


def path_of(field: str) -> tuple[str | int, ...]:
    """The path of a rule's Lua text in the rule's document."""
    return tuple(int(name) if name.isdigit() else name for name in field.split("."))


def step_of(field: str) -> int:
    """The number of the step that a sequence's text is of, from 0."""
    return int(field.removeprefix(_STEPS).partition(".")[0]) if field.startswith(_STEPS) else 0
