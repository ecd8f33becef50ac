"""The times that rules' Lua may read of an event: its own, and what clocks of users' time zones showed then."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from transforms.domain.base.calendar import wall_ms
from transforms.domain.rules.engine import LOCAL_TIME, TIME_NAMES
from transforms.domain.rules.model import Rule, TimeZone
from transforms.domain.rules.state import zone_for

# A text or comment may have these names, too: then the times are computed in vain.
_READS_TIME: Final = re.compile(rf"\b(?:{'|'.join(TIME_NAMES)})\b")
_READS_LOCAL_TIME: Final = re.compile(rf"\b{LOCAL_TIME}\b")


class Clocks:
    """The clocks that the Lua of a rule set reads, one a time zone: most rules share theirs.

    Args:
        sources: each rule with a Lua text of it.

    Attributes:
        are_read: whether any text reads a time.
        profile_fields: the fields of the profile that may hold the name of a zone.
    """

    def __init__(self, sources: Iterable[tuple[Rule, str]]) -> None:
        texts = [(rule, source) for rule, source in sources if _READS_TIME.search(source)]
        self.are_read = bool(texts)
        zones = (rule.time_zone for rule, source in texts if _READS_LOCAL_TIME.search(source))
        self._zones: tuple[TimeZone, ...] = tuple(dict.fromkeys(zones))
        paths = [zone.profile_field for zone in self._zones if zone.profile_field is not None]
        self.profile_fields = tuple(dict.fromkeys(name for path in paths for name in (path, path.partition(".")[0])))

    def place_of(self, rule: Rule) -> int:
        """The place of a rule's local time among the clocks; 0 is the event's time."""
        return self._zones.index(rule.time_zone) + 1 if rule.time_zone in self._zones else 0

    def at(self, at_ms: int, profile: dict[str, Any]) -> list[int]:
        """The clocks at a time, for ``Engine.set_inputs``."""
        return [at_ms, *(wall_ms(at_ms, zone_for(zone, profile)) for zone in self._zones)]
