"""Clocks on walls: when quiet hours end, and where a user's days, weeks and months begin."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final, Literal
from zoneinfo import ZoneInfo

_DAY: Final = timedelta(days=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_MS: Final = 60_000
_DAY_MINUTES: Final = 24 * 60

Period = Literal["day", "week", "month"]


def rfc_3339(time_ms: int) -> str:
    """A time (ms since the epoch) in UTC."""
    return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def zone_of(name: object) -> ZoneInfo | None:
    """The zone of an IANA name, None for anything else. Names are tzdata's, so they do not differ between machines."""
    return _zone(name) if isinstance(name, str) and name in _names() else None


@cache
def _names() -> frozenset[str]:
    return frozenset((files("tzdata") / "zones").read_text("ascii").split())


@cache  # of names only: some 600
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def quiet_until_ms(now_ms: int, start: str, end: str, zone: ZoneInfo) -> int | None:
    """When the quiet hours end that ``now_ms`` lies in, later than it; None if it is not quiet then.

    It is quiet while the clock on the wall shows ``start`` or later and not yet ``end`` (``HH:MM``, over midnight if
    ``end`` is earlier). Where clocks are set forward past ``end``, it comes when the clock that was not set forward
    shows it; where they are set back, twice.
    """
    first, last = _minute_of(start), _minute_of(end)
    length_ms = (last - first) % _DAY_MINUTES * _MINUTE_MS
    until_ms: int | None = None
    at_ms = now_ms
    # Again where clocks set forward run past end into the next quiet hours.
    while (at := _quiet_at(at_ms, first, last, length_ms, zone)) is not None:
        until_ms = at_ms = at
    return until_ms


def _quiet_at(now_ms: int, first: int, last: int, length_ms: int, zone: ZoneInfo) -> int | None:
    """The next ``end`` after ``now_ms`` if it is quiet then, else None."""
    now = _local(now_ms, zone)
    ends = _ends(now.toordinal(), last, zone)
    coming_ms, skipped = next(end for end in ends if end[0] > now_ms)
    minute = now.hour * 60 + now.minute
    quiet = first <= minute < last if first < last else minute >= first or minute < last
    return coming_ms if quiet or (skipped and coming_ms - now_ms <= length_ms) else None


@lru_cache(maxsize=8192)
def _ends(ordinal: int, minute: int, zone: ZoneInfo) -> tuple[tuple[int, bool], ...]:
    """Instants (ms) at which it is ``minute`` of a day around; whether clocks were set forward past it."""
    found = set()
    for day in (ordinal - 1, ordinal, ordinal + 1, ordinal + 2):
        wall = datetime.combine(date.fromordinal(day), time(minute // 60, minute % 60), zone)
        skipped = _is_skipped(wall)
        found.add((_ms(wall), skipped))
        if not skipped:
            found.add((_ms(wall.replace(fold=1)), False))
    return tuple(sorted(found))


def period_start_ms(at_ms: int, per: Period, zone: ZoneInfo) -> int:
    """When the calendar day, week (from Monday) or month that ``at_ms`` lies in began: at its first day's first moment.

    Periods follow each other without a gap: where clocks are set back over midnight, the day that has begun goes on.
    """
    return _period_ms(at_ms, per, zone)[0]


def period_end_ms(at_ms: int, per: Period, zone: ZoneInfo) -> int:
    """When the next day, week or month begins, see ``period_start_ms``."""
    return _period_ms(at_ms, per, zone)[1]


def _period_ms(at_ms: int, per: Period, zone: ZoneInfo) -> tuple[int, int]:
    ordinal = _local(at_ms, zone).toordinal()
    start_ms, end_ms = _period_of_day_ms(ordinal, per, zone)
    if at_ms >= end_ms:  # clocks were set back over midnight
        start_ms, end_ms = _period_of_day_ms(ordinal + 1, per, zone)
    return start_ms, end_ms


@lru_cache(maxsize=8192)
def _period_of_day_ms(ordinal: int, per: Period, zone: ZoneInfo) -> tuple[int, int]:
    day = date.fromordinal(ordinal)
    if per == "day":
        start, end = day, day + _DAY
    elif per == "week":
        start = day - day.weekday() * _DAY
        end = start + 7 * _DAY
    else:
        start = day.replace(day=1)
        end = (start + 31 * _DAY).replace(day=1)
    return _begin_ms(start, zone), _begin_ms(end, zone)


def _begin_ms(day: date, zone: ZoneInfo) -> int:
    """The first moment whose local date is ``day`` or later."""
    midnight = datetime.combine(day, time(), zone)
    if not _is_skipped(midnight):
        return _ms(midnight)
    # fold=1 is the offset after clocks are set forward: too early by the whole gap, as fold=0 may be too late.
    early, late = _ms(midnight.replace(fold=1)) // 1000, _ms(midnight) // 1000
    while early < late:
        middle = (early + late) // 2
        if _local(middle * 1000, zone).date() >= day:
            late = middle
        else:
            early = middle + 1
    return early * 1000


def _is_skipped(wall: datetime) -> bool:
    """Whether no clock ever shows it, because clocks are set forward past it."""
    return wall.astimezone(UTC).astimezone(wall.tzinfo).replace(tzinfo=None) != wall.replace(tzinfo=None)


def _local(at_ms: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, zone)


def _ms(wall: datetime) -> int:
    return int(wall.timestamp()) * 1000


@cache  # of rules only
def _minute_of(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])
