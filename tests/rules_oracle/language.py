"""What a rule may ask, in plain Python: the functions and names of docs/rules.md.

Shares no code with what it checks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

Json = dict[str, Any]

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class LuaError(Exception):
    """The rule's Lua fails here."""


@dataclass(frozen=True)
class LocalTime:
    hour: int
    minute: int
    weekday: int
    date: str
    day_of_month: int


@dataclass(frozen=True)
class Asked:
    """What a rule's Lua sees. ``time_ms`` is the *t* of docs/rules.md."""

    event: Json
    user: Json
    enrichment: str
    visit: Json | None
    history: list[Json]
    time_ms: int
    zone: ZoneInfo
    begun: Json | None = None

    @property
    def name(self) -> str:
        return str(self.event["event_name"])

    @property
    def parameters(self) -> Json:
        return dict(self.event["parameters"])

    @property
    def page_count(self) -> int:
        return self.visit["page_count"] if self.visit else 0

    @property
    def history_since(self) -> int:
        return self.history[0]["timestamp"] if self.history else self.time_ms

    @property
    def local_time(self) -> LocalTime:
        local = wall_clock(self.time_ms, self.zone)
        return LocalTime(local.hour, local.minute, local.isoweekday(), local.date().isoformat(), local.day)

    def past(
        self, event: str | None = None, within: int | None = None, where: Callable[[Json], object] | None = None
    ) -> list[Json]:
        """The events of the history that count, oldest first."""
        rows = [row for row in self.history if event is None or row["event_name"] == event]
        if within is not None:
            rows = [row for row in rows if self.time_ms - within < row["timestamp"] <= self.time_ms]
        return [row for row in rows if where is None or where(row)]

    def count(self, **options: Any) -> int:
        return len(self.past(**options))

    def last(self, **options: Any) -> Json | None:
        rows = self.past(**options)
        return rows[-1] if rows else None

    def distinct(self, of: str, **options: Any) -> int:
        values = (field_of(row, of) for row in self.past(**options))
        return len({scalar_key(value) for value in values if isinstance(value, str | int | float)})


def scalar_key(value: Any) -> tuple[str, Any]:
    """Two JSON values are the same if their keys are: 1 and 1.0 are, 1 and True are not."""
    return ("bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text", value)


def field_of(holder: Any, path: str) -> Any:
    """The field at a path; None where there is none. A field with dots in its own name comes first."""
    if not isinstance(holder, dict):
        return None
    if path in holder:
        return holder[path]
    head, _, rest = path.partition(".")
    return field_of(holder.get(head), rest) if rest else None


def match_values(event: Json, path: str) -> list[Any]:
    """The values that a ``match`` compares: several where the path has ``[]``."""
    head, marker, rest = path.partition("[].")
    if not marker:
        value = field_of(event, path)
        return [] if value is None else [value]
    items = field_of(event, head)
    found = [match_values(item, rest) for item in items] if isinstance(items, list) else []
    return [value for values in found for value in values]


@cache
def bucket(id_: str, salt: str) -> float:
    digest = hashlib.sha256(salt.encode() + b"\0" + id_.encode()).digest()
    return (int.from_bytes(digest[:4], "big") * 10_000 // 2**32) / 100


def days_between(earlier: int | str, later: int | str) -> int:
    milliseconds = _instant(later) - _instant(earlier)
    return abs(milliseconds) // DAY_MS * (1 if milliseconds >= 0 else -1)


def _instant(value: int | str) -> int:
    if isinstance(value, int):
        return value
    moment = datetime.fromisoformat(value)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def wall_clock(time_ms: int, zone: ZoneInfo) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).astimezone(zone)


@cache
def zone_named(name: Any, default: str) -> ZoneInfo:
    if isinstance(name, str) and name:
        try:
            return ZoneInfo(name)
        except (ValueError, OSError, KeyError):
            pass
    return ZoneInfo(default)


def day_minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


@dataclass(frozen=True)
class Hours:
    """``active`` or ``quiet_hours``: from one time of the day to another, on the days on which they begin."""

    begin: str = "00:00"
    end: str = "24:00"
    days: tuple[str, ...] = WEEKDAYS
    mode: str = "hold"

    def windows(self, local: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The windows, in wall clock time, that may hold this moment."""
        for day in (local.date() - timedelta(days=1), local.date()):
            if WEEKDAYS[day.weekday()] in self.days:
                length = day_minute(self.end) - day_minute(self.begin)
                begin = _at_minute(day, day_minute(self.begin))
                yield begin, begin + timedelta(minutes=length if length > 0 else length + 24 * 60)

    def has(self, time_ms: int, zone: ZoneInfo) -> bool:
        local = wall_clock(time_ms, zone).replace(tzinfo=None, fold=0)
        return any(begin <= local < end for begin, end in self.windows(local))

    def quiet_until(self, time_ms: int, zone: ZoneInfo) -> int | None:
        """The end of the quiet hours that a moment is in, or None.

        An end that the clocks skip is an hour later; one that they repeat comes twice.
        """
        local = wall_clock(time_ms, zone)
        for begin, end in self.windows(local):
            ends = [_milliseconds(end.replace(tzinfo=zone, fold=fold)) for fold in (0, 1)]
            skipped = wall_clock(ends[0], zone).replace(tzinfo=None) != end
            if skipped and begin <= local.replace(tzinfo=None) and time_ms < ends[0]:
                return ends[0]
            if begin <= local.replace(tzinfo=None, fold=0) < end:
                return min(moment for moment in ends if moment > time_ms)
        return None


def _at_minute(day: date, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day) + timedelta(minutes=minute)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def period_begin(per: str, time_ms: int, zone: ZoneInfo) -> date:
    """The first day of the day, week or month of a time."""
    day = wall_clock(time_ms, zone).date()
    if per == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if per == "month" else day


def period_end_ms(per: str, time_ms: int, zone: ZoneInfo) -> int:
    begin = period_begin(per, time_ms, zone)
    if per == "month":
        end = (begin + timedelta(days=32)).replace(day=1)
    else:
        end = begin + timedelta(days=7 if per == "week" else 1)
    return _milliseconds(datetime(end.year, end.month, end.day, tzinfo=zone))


# --- bodies ---------------------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(r'\$\{((?:"(?:[^"\\]|\\.)*"|[^}"|])*)(?:\|([^}]*))?\}')
_STEP = re.compile(r'\[(-?\d+)\]|\["((?:[^"\\]|\\.)*)"\]|\.?([^.\[]+)')
_MISSING = (None, "")


def render(body: Any, roots: Json) -> Any:
    """A body with its placeholders filled in."""
    if isinstance(body, dict):
        return {name: render(value, roots) for name, value in body.items()}
    if isinstance(body, list):
        return [render(item, roots) for item in body]
    if not isinstance(body, str):
        return body
    whole = _PLACEHOLDER.fullmatch(body)
    if whole:
        return _placeholder(whole, roots)
    return _PLACEHOLDER.sub(lambda found: _text(_placeholder(found, roots)), body)


def _placeholder(found: re.Match[str], roots: Json) -> Any:
    path, default = found.group(1), found.group(2)
    if path.startswith('"'):
        return json.loads(path)
    value = _lookup(path, roots)
    return default if default is not None and value in _MISSING else value


def _lookup(path: str, roots: Json) -> Any:
    if "[" not in path:
        return field_of(roots, path)
    value: Any = roots
    for index, quoted, name in _STEP.findall(path):
        if index:
            place = int(index)
            items = value if isinstance(value, list) else []
            inside = 1 <= place <= len(items) or -len(items) <= place <= -1
            value = items[place - 1 if place > 0 else place] if inside else None
        else:
            value = value.get(quoted or name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    """A value inside of a longer text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
