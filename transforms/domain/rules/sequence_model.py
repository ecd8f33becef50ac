"""The model of ``sequence``: what has to follow an event, or not to follow.

The docstrings and descriptions of the models are part of docs/rule.schema.json.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import Discriminator, Field, Tag, model_validator

from transforms.domain.base.durations import Duration
from transforms.domain.base.models import StrictModel
from transforms.domain.rules.lua_source import Lua

MOST_STEPS: Final = 8
_FIELD_PATH: Final = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,7}$"
_PATH_OF_ITEMS: Final = r"^[A-Za-z_]\w*(\[\])?(\.[A-Za-z_]\w*(\[\])?){0,7}$"


class Match(StrictModel):
    """The field of the event that begins a sequence and that of the events that follow, which have the same value."""

    begun: str = Field(pattern=_FIELD_PATH, description="like parameters.sku")
    followed: str = Field(
        pattern=_PATH_OF_ITEMS, description="like parameters.items[].sku: any of the items has the same value"
    )


def _form_of_match(value: Any) -> str:
    return "Match" if isinstance(value, dict | Match) else "path"


AnyMatch = Annotated[
    Annotated[str, Field(pattern=_FIELD_PATH), Tag("path")] | Annotated[Match, Tag("Match")],
    Discriminator(_form_of_match),
]


class Step(StrictModel):
    """What has to follow next, or not to follow."""

    followed_by: Lua | None = Field(default=None, description="Lua like filter: the step ends at the event it allows")
    not_followed_by: Lua | None = Field(
        default=None, description="Lua like filter, of the last step: the rule fires if it allowed no event in time"
    )
    within: Duration = Field(description="event time since the event that ended the step before")

    @model_validator(mode="after")
    def _either_followed_or_not(self) -> Step:
        if (self.followed_by is None) == (self.not_followed_by is None):
            raise ValueError(_EITHER)
        return self


_BEGUN: Final = re.compile(r"\bbegun\b")
_EITHER: Final = "needs either followed_by or not_followed_by"


class Sequence(StrictModel):
    """What has to follow, or not to follow, the event that the rule's filter allows: one step, or several."""

    followed_by: Lua | None = Field(default=None, description="Lua like filter: the rule fires at the event it allows")
    not_followed_by: Lua | None = Field(
        default=None, description="Lua like filter: the rule fires when the time is over and it allowed no event"
    )
    within: Duration | None = Field(
        default=None, description="event time since the event that the rule's filter allowed"
    )
    steps: tuple[Step, ...] | None = Field(
        default=None,
        min_length=2,
        max_length=MOST_STEPS,
        strict=False,
        description="in place of one step: several in a row",
    )
    match: AnyMatch | None = Field(
        default=None, description="event field that all events have the same value of, like parameters.cart_id"
    )

    @model_validator(mode="after")
    def _one_form(self) -> Sequence:
        conditions = sum(condition is not None for condition in (self.followed_by, self.not_followed_by))
        if self.steps is not None and (conditions or self.within is not None):
            raise ValueError("steps stands alone: followed_by, not_followed_by and within are in each of them")
        if self.steps is None and conditions != 1:
            raise ValueError(f"{_EITHER}, or steps")
        if self.steps is None and self.within is None:
            raise ValueError("needs within, as in within: 30m")
        if any(step.not_followed_by is not None for step in self.all_steps[:-1]):
            raise ValueError("only the last step can be not_followed_by")
        return self

    @cached_property
    def all_steps(self) -> tuple[Step, ...]:
        """The steps, also of the short form."""
        if self.steps is not None or self.within is None:
            return self.steps or ()
        return (Step(followed_by=self.followed_by, not_followed_by=self.not_followed_by, within=self.within),)

    @property
    def waits_for_nothing(self) -> bool:
        """Whether the rule fires because nothing followed."""
        return self.all_steps[-1].not_followed_by is not None

    @cached_property
    def begun_readers(self) -> frozenset[int]:
        """The steps whose Lua names ``begun``, the event that began the sequence."""
        sources = enumerate(step.followed_by or step.not_followed_by or "" for step in self.all_steps)
        return frozenset(number for number, source in sources if _BEGUN.search(source))

    @cached_property
    def matched(self) -> Match | None:
        """The fields that are compared, also of the short form."""
        return Match(begun=self.match, followed=self.match) if isinstance(self.match, str) else self.match
