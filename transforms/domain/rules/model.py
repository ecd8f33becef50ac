"""Rules: pydantic models of rule documents. ``files.py`` reads them.

The docstrings and descriptions of the models are part of docs/rule.schema.json.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from transforms.domain.base.calendar import EVERY_DAY, zone_of
from transforms.domain.base.durations import Duration
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.base.models import StrictModel, repeated
from transforms.domain.base.names import NAME
from transforms.domain.rules import templates
from transforms.domain.rules.lua_source import Lua
from transforms.domain.rules.placeholders import placeholders_of
from transforms.domain.rules.sequence_model import Sequence

# What every reader of an action takes for a whole number; part of the action's id.
MAX_VERSION: Final = 2**63 - 1

# ``on_missing_profile``: what a rule does with an event whose user's profile is not loaded, or failed to load.
WAIT: Final = "wait"
RUN: Final = "run"
SKIP: Final = "skip"

DROP: Final = "drop"  # of quiet hours, beside ``hold``


class RuleError(EventTriggerError, ValueError):
    """A rule that cannot be used; the message names the file, line, field, the value and what is allowed."""


Name = Annotated[str, Field(pattern=f"^{NAME}$")]


class DebugAction(StrictModel):
    """Prints ``DEBUG EVENT {json}``."""

    type: Literal["debug"]
    name: Name = Field(default="debug", description="unique within the rule")


def _checked_template(template: Any) -> Any:
    templates.check(template)
    return template


Body = Annotated[
    dict[str, Any] | None,
    AfterValidator(_checked_template),
    Field(description="JSON to send instead of the enriched event; ${event.parameters.sku} stands for a value"),
]


def _no_folder(topic: str) -> str:
    if topic in (".", ".."):
        raise ValueError("no name of a topic")
    return topic


class KafkaAction(StrictModel):
    """Writes the enriched event, or a body of its own, to a Kafka topic, keyed by user."""

    type: Literal["kafka"]
    name: Name = Field(default="kafka", description="unique within the rule")
    body: Body = None
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$"), AfterValidator(_no_folder)] | None = Field(
        default=None, description="default: the actions topic of the job"
    )


class WebhookAction(StrictModel):
    """POSTs the enriched event, or a body of its own, to a destination."""

    type: Literal["webhook"]
    name: Name = Field(default="webhook", description="unique within the rule")
    destination: Name = Field(description="name of a destination of the destinations file")
    body: Body = None
    history: bool = Field(default=False, description="whether the enriched event has eventHistory")


Action = Annotated[DebugAction | KafkaAction | WebhookAction, Field(discriminator="type")]


class Cooldown(StrictModel):
    """How long a rule stays silent after it fired; ``cooldown: 1d`` is short for its ``time``."""

    time: Duration = Field(description="from the event that fired")
    key: Lua | None = Field(
        default=None,
        description="Lua expression (text or number): a cooldown for each of its values; default: one a user",
    )


class Cap(StrictModel):
    """At most ``count`` times a user: in a rolling ``window``, or ``per`` calendar day, week or month."""

    count: int = Field(ge=1, le=1000)
    window: Duration | None = Field(default=None, description="rolling")
    per: Literal["day", "week", "month"] | None = Field(
        default=None, description="calendar, in the rule's time_zone; weeks begin on Monday"
    )

    @model_validator(mode="after")
    def _either_rolling_or_calendar(self) -> Cap:
        if (self.window is None) == (self.per is None):
            raise ValueError("needs either window (rolling) or per (calendar)")
        return self


_TIME_OF_DAY: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
_END_OF_DAY: Final = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SAME_TIME: Final = "are the same time of day"


def _each_once(days: tuple[str, ...]) -> tuple[str, ...]:
    day = repeated(days)
    if day is not None:
        raise ValueError(f"{day} is there twice")
    return days


Days = Annotated[tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], AfterValidator(_each_once)]


def _weekdays(days: Days | None) -> frozenset[int]:
    return EVERY_DAY if days is None else frozenset(map(DAYS.index, days))


class Active(StrictModel):
    """When the rule sees events: on these days, from one time of day to another, in its time_zone, by event time."""

    model_config = ConfigDict(serialize_by_alias=True)

    days: Days | None = Field(
        default=None, min_length=1, strict=False, description="mon to sun; hours past midnight are of the day before"
    )
    start: str = Field(default="00:00", alias="from", pattern=_TIME_OF_DAY, description="HH:MM")
    end: str = Field(
        default="24:00", alias="to", pattern=_END_OF_DAY, description="HH:MM; before from: the next morning"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Active:
        if self.start == self.end:
            raise ValueError(f"from and to {_SAME_TIME}")
        if self.weekdays == EVERY_DAY and (self.start, self.end) == ("00:00", "24:00"):
            raise ValueError("needs days, or from and to: it leaves out no time")
        return self

    @cached_property
    def weekdays(self) -> frozenset[int]:
        """The days as numbers, Monday is 0."""
        return _weekdays(self.days)


class QuietHours(StrictModel):
    """From ``start`` to ``end``, in the rule's time_zone, actions are held and go out at ``end``, or are dropped."""

    start: str = Field(pattern=_TIME_OF_DAY, description="HH:MM")
    end: str = Field(pattern=_END_OF_DAY, description="HH:MM; before start: the next morning")
    days: Days | None = Field(
        default=None, min_length=1, strict=False, description="mon to sun, on which they begin; default: every day"
    )
    mode: Literal["hold", "drop"] = Field(default="hold", description="hold actions until end, or drop them")

    @model_validator(mode="after")
    def _leaves_time(self) -> QuietHours:
        if self.start == self.end:
            raise ValueError(f"start and end {_SAME_TIME}")
        if self.weekdays == EVERY_DAY and (self.start, self.end) == ("00:00", "24:00"):
            raise ValueError("all hours of all days are quiet")
        return self

    @cached_property
    def weekdays(self) -> frozenset[int]:
        """The days as numbers, Monday is 0."""
        return _weekdays(self.days)


def _known_zone(name: str) -> str:
    if zone_of(name) is None:
        raise ValueError("no such time zone, allowed are IANA names like Europe/Berlin")
    return name


class TimeZone(StrictModel):
    """Where the user's days begin: a profile field with an IANA name, and what holds for users without a valid one."""

    profile_field: str | None = Field(
        default="timezone",
        min_length=1,
        description="a name, or a path like address.timezone; null: default for everybody",
    )
    default: Annotated[str, AfterValidator(_known_zone)] = "UTC"


class Group(StrictModel):
    """What the rules that name it share: a cap, who speaks if several want to, and who gets nothing."""

    cap: Cap | None = Field(default=None, description="counts the firings of all rules of the group, by user")
    pick: Literal["highest_priority"] = Field(default="highest_priority", description="which rule speaks")
    within: Duration | None = Field(
        default=None, description="record time since the first rule that would fire, after which one of them is picked"
    )
    unless: Lua | None = Field(
        default=None, description="Lua over user and enrichment: users for whom it holds get nothing from the group"
    )
    time_zone: TimeZone = Field(default=TimeZone(), description="of cap's calendar")


Groups = dict[Name, Group]


def _cooldown_of_time(value: Any) -> Any:
    return {"time": value} if isinstance(value, str) else value


class Rule(StrictModel):
    """One rule: a Lua filter over ``event``, ``user``, ``visit`` and ``history``, and what to do where it allows."""

    name: Name = Field(description="unique among the rules")
    version: int = Field(
        ge=1, le=MAX_VERSION, description="part of every action's id: raise it when the meaning changes"
    )
    description: str = Field(default="", description="for people")
    filter: Lua = Field(description="Lua: an expression, or a body with return")
    actions: tuple[Action, ...] = Field(min_length=1, strict=False)
    on_missing_profile: Literal["wait", "run", "skip"] = Field(
        default=WAIT,
        description="while the user is being loaded: wait for the profile, run with an empty one, or skip the event",
    )
    active: Active | None = None
    sequence: Sequence | None = None
    cooldown: Annotated[Cooldown | None, BeforeValidator(_cooldown_of_time)] = None
    cap: Cap | None = None
    quiet_hours: QuietHours | None = None
    recheck: Lua | None = Field(
        default=None, description="Lua like filter, asked when quiet hours end: only what it allows then goes out"
    )
    time_zone: TimeZone = Field(default=TimeZone(), description="of active, cap's calendar, quiet_hours and local_time")
    group: Name | None = Field(default=None, description="name of a group, which rules share")
    priority: int = Field(default=0, ge=0, le=100, description="within the group: the highest speaks, ties by name")
    expires: Duration | None = Field(
        default=None,
        description="how long after it was decided an action may still be sent; default: as long as needed",
    )
    # The group of that name, of the rule's set. Not a field: what rules share is written once in a set.
    _shared: Group | None = PrivateAttr(default=None)

    @cached_property
    def reads_begun(self) -> bool:
        """Whether a body or the Lua of a step reads the event that began the sequence."""
        if self.sequence is not None and self.sequence.begun_readers:
            return True
        bodies = (action.body for action in self.actions if not isinstance(action, DebugAction))
        return any(placeholder.root == "begun" for body in bodies for _, placeholder in placeholders_of(body))

    @property
    def shared(self) -> Group | None:
        """The rule's group, once ``in_group`` has set it."""
        return self._shared

    def in_group(self, group: Group) -> Rule:
        """The rule with its group."""
        found = self.model_copy()
        found._shared = group
        return found

    @model_validator(mode="after")
    def _priority_is_within_a_group(self) -> Rule:
        if self.group is None and self.priority:
            raise ValueError("priority is among the rules of a group: the rule has no group")
        return self

    @model_validator(mode="after")
    def _begun_is_of_a_sequence(self) -> Rule:
        if self.reads_begun and self.sequence is None:
            raise ValueError("a body has ${begun}, the event that begins a sequence: the rule has no sequence")
        return self

    @model_validator(mode="after")
    def _recheck_is_of_held_actions(self) -> Rule:
        if self.recheck is not None and (self.quiet_hours is None or self.quiet_hours.mode == DROP):
            raise ValueError("recheck is asked when quiet hours end: the rule has no quiet_hours that hold actions")
        return self

    @model_validator(mode="after")
    def _action_names_are_unique(self) -> Rule:
        name = repeated(action.name for action in self.actions)
        if name is not None:
            raise ValueError(f"action name {name!r} is used twice; names are unique within a rule")
        return self
