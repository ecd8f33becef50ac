"""The Lua texts of a rule."""

from __future__ import annotations

from typing import Final

from transforms.domain.rules.model import Rule

FILTER: Final = "filter"
COOLDOWN_KEY: Final = "cooldown.key"
FOLLOWED_BY: Final = "sequence.followed_by"
NOT_FOLLOWED_BY: Final = "sequence.not_followed_by"


def programs_of(rule: Rule) -> list[tuple[str, str]]:
    """Field and source of each of a rule's Lua texts, the filter first."""
    cooldown, sequence = rule.cooldown, rule.sequence
    texts = [
        (FILTER, rule.filter),
        (FOLLOWED_BY, sequence and sequence.followed_by),
        (NOT_FOLLOWED_BY, sequence and sequence.not_followed_by),
        (COOLDOWN_KEY, cooldown and cooldown.key),
    ]
    return [(name, text) for name, text in texts if text]
