"""How an option is declared: a pydantic field with help text, unit and bounds, in a group."""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

DIRECT_RUNNER: Final = "DirectRunner"
FLINK_RUNNER: Final = "FlinkRunner"
AT_LEAST_ONCE: Final = "AT_LEAST_ONCE"
EXACTLY_ONCE: Final = "EXACTLY_ONCE"
JSON: Final = "json"
# The unit of options that say where a secret lies.
REFERENCE: Final = "reference to a secret"
_UNIONS: Final = (types.UnionType, typing.Union)


class OptionGroup(BaseSettings):
    """Options of one part of the job; ``heading`` is their heading in ``--help`` and docs/configuration.md."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    heading: ClassVar[str]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the given values: ``resolve`` reads the environment and the file, and remembers what came from where."""
        return (init_settings,)


def option(
    default: Any, text: str, *, unit: str | None = None, least: float | None = None, most: float | None = None
) -> Any:
    """A field of an option group.

    Args:
        default: the value if nothing gives another. No other place has defaults.
        text: the help text, without unit, choices and default, which are added.
        unit: the unit of a number; ``path`` or ``REFERENCE`` for a text that is one.
        least: smallest number that is allowed.
        most: largest number that is allowed.
    """
    return Field(
        default, description=text, ge=least, le=most, json_schema_extra={"unit": unit} if unit is not None else None
    )


@dataclass(frozen=True)
class Option:
    """What is known of an option; ``kind`` is its type without None, ``choices`` are the allowed texts."""

    name: str
    heading: str
    info: FieldInfo
    kind: Any
    unit: str | None
    least: float | None
    most: float | None
    choices: tuple[str, ...]

    @property
    def default(self) -> Any:
        """The value if nothing gives another."""
        return self.info.default

    @property
    def text(self) -> str:
        """The help text."""
        return str(self.info.description)

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return self.kind in (int, float)

    @property
    def is_reference(self) -> bool:
        """Whether it says where a secret lies, and must never be the secret."""
        return self.unit == REFERENCE

    @property
    def shown_default(self) -> str:
        """The default as ``--help`` and docs/configuration.md show it."""
        if self.default is None or self.default == ():
            return "none"
        return "off" if self.default is False else str(self.default)

    @property
    def allowed(self) -> str:
        """The allowed values, for errors."""
        if self.choices:
            return ", ".join(self.choices)
        if not self.is_number:
            return {bool: "true or false", tuple[str, ...]: "a list of texts"}.get(self.kind, "a text")
        ends = ("any" if end is None else f"{end}" for end in (self.least, self.most))
        return f"{' to '.join(ends)} {self.unit}"

    @functools.cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Checks a value of this option alone."""
        checked: Any = self.info.annotation
        for bound in self.info.metadata:
            checked = Annotated[checked, bound]
        return TypeAdapter(checked, config=ConfigDict(allow_inf_nan=False))


def options_of(group: type[OptionGroup]) -> dict[str, Option]:
    """The options that a group declares itself, by name."""
    return {name: _option(name, group.heading, group.model_fields[name]) for name in _own_fields(group)}


def _own_fields(group: type[OptionGroup]) -> list[str]:
    return [name for name in group.model_fields if name in group.__annotations__]


def _option(name: str, heading: str, info: FieldInfo) -> Option:
    kinds = typing.get_args(info.annotation) if typing.get_origin(info.annotation) in _UNIONS else (info.annotation,)
    kind = next(kind for kind in kinds if kind is not types.NoneType)
    bounds = {end: getattr(bound, end) for bound in info.metadata for end in ("ge", "le") if hasattr(bound, end)}
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    unit = extra.get("unit")
    return Option(
        name, heading, info, kind, None if unit is None else str(unit), bounds.get("ge"), bounds.get("le"), choices
    )
