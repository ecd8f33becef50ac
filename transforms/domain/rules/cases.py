"""Cases of rules: models of ``tests:`` in rule documents. ``simulation/case_runner.py`` runs them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from transforms.domain.base.durations import Duration
from transforms.domain.base.models import StrictModel
from transforms.domain.rules.model import Name
from transforms.domain.users.user import PENDING

NOTHING: Final = "nothing"


def _timestamp_ms(text: Any) -> int:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValueError("a time is written like 2024-01-01T12:00:00Z") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


Time = Annotated[
    int, BeforeValidator(_timestamp_ms), WithJsonSchema({"type": "string", "examples": ["2024-01-01T12:00:00Z"]})
]


class GivenVisit(StrictModel):
    """The visit before the first event."""

    visit_id: str = "visit"
    start_time: int | None = Field(default=None, description="ms since the epoch; default: a minute before the clock")
    page_count: int = Field(default=1, ge=0)
    is_first_visit: bool = False


def _split_event(given: Any, name: str) -> Any:
    """Split an event's mapping into ``{name, fields}``: the key ``name`` is not a field of the event."""
    if not isinstance(given, dict):
        raise ValueError("an event is a mapping of its fields")
    fields = dict(given)
    return {name: fields.pop(name), "fields": fields} if name in given else {"fields": fields}


def _event_schema(name: str, description: str) -> dict[str, Any]:
    duration = {"type": "string", "pattern": "^[1-9][0-9]{0,7}[smhdw]$", "description": description}
    return {"type": "object", "properties": {name: duration}, "additionalProperties": True}


class PastEvent(StrictModel):
    """An event of the history, ``ago`` before the clock; without it, seconds apart and in the order given."""

    ago: Duration | None = None
    fields: dict[str, Any]

    @model_validator(mode="after")
    def _is_as_stored(self) -> PastEvent:
        for name, kind in (("event_id", str), ("event_name", str), ("timestamp", int)):
            if name in self.fields and type(self.fields[name]) is not kind:
                raise ValueError(f"{name} is {self.fields[name]!r}, allowed is {kind.__name__}")
        return self


class GivenEvent(StrictModel):
    """An event that arrives, ``after`` the one before (the first: after the clock); its timestamp is that time."""

    after: Duration | None = None
    fields: dict[str, Any]


Past = Annotated[
    PastEvent,
    BeforeValidator(lambda given: _split_event(given, "ago")),
    WithJsonSchema(_event_schema("ago", "how long before the clock")),
]
Given = Annotated[
    GivenEvent,
    BeforeValidator(lambda given: _split_event(given, "after")),
    WithJsonSchema(_event_schema("after", "time since the event before")),
]


class ExpectedAction(StrictModel):
    """An action that fires; a bare text is the action's name."""

    action: Name
    event: int | None = Field(default=None, ge=1, description="number of the event that it is for, from 1")
    body: dict[str, Any] = Field(default={}, description="what the body contains, among others")


# The decisions that a case may expect, beside actions.
LOST: Final = ("suppressed", "group_capped", "outranked", "expired")
Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    Field(default=(), strict=False),
]


class Expected(StrictModel):
    """All actions in their order, why others were not sent, or a part of the message of a rule error."""

    actions: tuple[ExpectedAction, ...] = Field(default=(), strict=False)
    error: str | None = None
    suppressed: Texts = ()
    group_capped: Texts = ()
    outranked: Texts = ()
    expired: Texts = ()

    @property
    def lost(self) -> list[tuple[str, str]]:
        """Decision and text of each firing or action that is not sent."""
        return [(kind, text) for kind in LOST for text in getattr(self, kind)]

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, given: Any) -> Any:
        if given == NOTHING:
            return {}
        if isinstance(given, list):
            return {"actions": _actions(given)}
        if isinstance(given, dict) and set(given) == {"error"} and isinstance(given["error"], str):
            return given
        if isinstance(given, dict) and given and set(given) <= {"actions", *LOST}:
            return {**given, "actions": _actions(given.get("actions", []))}
        raise ValueError(
            'allowed are "nothing", a list of actions, {error: part of its message}, '
            f"and {{{', '.join(LOST)}: an action, a group, the rule that was picked}}"
        )


def _actions(given: Any) -> Any:
    return [{"action": item} if isinstance(item, str) else item for item in given] if isinstance(given, list) else given


_ACTION_SCHEMA: Final = {
    "type": "object",
    "required": ["action"],
    "additionalProperties": False,
    "properties": {
        "action": {"type": "string"},
        "event": {"type": "integer", "minimum": 1, "description": "number of the event that it is for, from 1"},
        "body": {"type": "object", "description": "what the body contains, among others"},
    },
}
_LOST_SCHEMA: Final = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "for each that is not sent: its action, the group, the rule that was picked, or part of the detail",
}
_EXPECTED_SCHEMA: Final = {
    "anyOf": [
        {"const": NOTHING},
        {"type": "array", "items": {"anyOf": [{"type": "string"}, _ACTION_SCHEMA]}},
        {
            "type": "object",
            "required": ["error"],
            "additionalProperties": False,
            "properties": {"error": {"type": "string", "description": "part of the rule error's message"}},
        },
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                "actions": {"type": "array", "items": {"anyOf": [{"type": "string"}, _ACTION_SCHEMA]}},
                **dict.fromkeys(LOST, _LOST_SCHEMA),
            },
        },
    ]
}


class Case(StrictModel):
    """What is known of a user, the events that then arrive, and what the rule does."""

    name: str = Field(min_length=1, max_length=200)
    now: Time = Field(default=1_704_110_400_000, description="the clock; default: 2024-01-01T12:00:00Z")
    profile: dict[str, Any] | Literal["unknown", "unavailable", "pending"] = Field(
        default={},
        description="what the user API says, or that it does not know the user, failed, or has not answered yet",
    )
    visit: GivenVisit | None = Field(default=None, description="default: the first event starts one")
    history: tuple[Past, ...] = Field(default=(), strict=False, description="oldest first")
    suppressed: tuple[Name | Literal["*"], ...] = Field(
        default=(), strict=False, description="groups of which the user gets nothing, by a control record; *: all rules"
    )
    events: tuple[Given, ...] = Field(min_length=1, strict=False)
    wait: Duration | None = Field(default=None, description="time that passes after the last event")
    expect: Annotated[Expected, WithJsonSchema(_EXPECTED_SCHEMA)]

    @model_validator(mode="after")
    def _is_about_one_user(self) -> Case:
        users = {given.fields.get("user_id", self.user_id) for given in self.events}
        if len(users) > 1:
            raise ValueError(f"events are of one user, these are of {sorted(map(str, users))}")
        return self

    @model_validator(mode="after")
    def _is_known_or_pending(self) -> Case:
        if self.profile == PENDING and (self.visit is not None or self.history):
            raise ValueError("visit and history come with the profile: a user who is pending has neither")
        return self

    @property
    def user_id(self) -> str:
        """The user of the case: ``user_id`` of its first event, by default ``user``."""
        return str(self.events[0].fields.get("user_id", "user"))
