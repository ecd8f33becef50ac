"""Durations as text in rules and options: ``30s``, ``10m``, ``2h``, ``1d``, ``1w``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_UNITS_MS: Final = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000}
_PATTERN: Final = r"^[1-9][0-9]{0,7}[smhdw]$"
_LONGEST_MS: Final = 366 * _UNITS_MS["d"]


@dataclass(frozen=True, slots=True)
class Duration:
    """A positive duration in ms, at most 366 days; a day is 24 hours."""

    ms: int

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Parse a whole number and a unit (s, m, h, d, w).

        Raises:
            ValueError: the text is not a duration, or the duration is too long; the message says what is allowed.
        """
        if isinstance(text, Duration):
            return text
        if not isinstance(text, str) or not re.fullmatch(_PATTERN, text):
            raise ValueError("a duration is a whole number and a unit (s, m, h, d, w), like 30s, 10m, 2h, 1d")
        ms = int(text[:-1]) * _UNITS_MS[text[-1]]
        if ms > _LONGEST_MS:
            raise ValueError("a duration is at most 366d")
        return cls(ms)

    def __str__(self) -> str:
        unit = next(unit for unit, unit_ms in _UNITS_MS.items() if self.ms % unit_ms == 0)
        return f"{self.ms // _UNITS_MS[unit]}{unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": _PATTERN, "examples": ["30s", "10m", "2h", "1d"]}
