"""Local time: when quiet hours end, and when the days, weeks and months of a time zone begin.

Instants are in ms since the epoch.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final, Literal
from zoneinfo import ZoneInfo

_DAY: Final = timedelta(days=1)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1_MS: Final = -62_135_596_800_000
_YEAR_9999_MS: Final = 253_402_300_799_999
# A month and more within them, so that what is computed from a time is in them, too.
_FIRST_S: Final = -62_100_000_000
_LAST_S: Final = 253_300_000_000
_MINUTE_MS: Final = 60_000
_DAY_MINUTES: Final = 24 * 60
EVERY_DAY: Final = frozenset(range(7))  # Monday is 0

Period = Literal["day", "week", "month"]


def rfc_3339(time_ms: int) -> str:
    """Format an instant as RFC 3339 in UTC, with milliseconds."""
    within_ms = min(max(time_ms, _YEAR_1_MS), _YEAR_9999_MS)
    return (_EPOCH + timedelta(milliseconds=within_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def zone_of(name: object) -> ZoneInfo | None:
    """Return the zone of an IANA name, None for anything else.

    Names and rules come from the tzdata package, so that all machines know the same zones.
    """
    return _zone(name) if isinstance(name, str) and name in _names() else None


@cache
def _names() -> frozenset[str]:
    return frozenset((files("tzdata") / "zones").read_text("ascii").split())


@cache  # bounded: some 600 names
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def wall_ms(at_ms: int, zone: ZoneInfo) -> int:
    """Return what clocks of a zone show at an instant, as the instant at which clocks in UTC show it."""
    offset = _local(at_ms, zone).utcoffset() or timedelta()
    return at_ms + offset // _MILLISECOND


def is_active(at_ms: int, start: str, end: str, zone: ZoneInfo, weekdays: frozenset[int] = EVERY_DAY) -> bool:
    """Whether the local time is ``start`` or later and before ``end`` (``HH:MM``), on one of the weekdays.

    Where ``end`` is not after ``start``, hours go on past midnight and belong to the weekday on which they began.
    """
    local = _local(at_ms, zone)
    minute, first, last = local.hour * 60 + local.minute, _minute_of(start), _minute_of(end)
    return _is_between(minute, first, last) and _weekday(local, minute, first, last) in weekdays


def _is_between(minute: int, first: int, last: int) -> bool:
    return first <= minute < last if first < last else minute >= first or minute < last


def _weekday(local: datetime, minute: int, first: int, last: int) -> int:
    """Return the weekday (Monday is 0) on which hours began that the local time is in."""
    return local.weekday() if first < last or minute >= first else (local.weekday() - 1) % 7


def quiet_until_ms(
    now_ms: int, start: str, end: str, zone: ZoneInfo, weekdays: frozenset[int] = EVERY_DAY
) -> int | None:
    """Return the end of the quiet hours that contain ``now_ms``; None outside quiet hours.

    Quiet hours last while the local time is ``start`` or later and before ``end`` (``HH:MM``, over midnight if ``end``
    is not later), and begin on one of the weekdays. Where clocks are set forward past ``end``, quiet hours end when a
    clock that was not set forward shows ``end``. Where clocks are set back over ``end``, ``end`` comes twice.
    """
    if not _FIRST_S <= now_ms // 1000 <= _LAST_S:
        return None  # no calendar has this time
    first, last = _minute_of(start), _minute_of(end) % _DAY_MINUTES
    length_ms = ((last - first) % _DAY_MINUTES or _DAY_MINUTES) * _MINUTE_MS
    until_ms: int | None = None
    at_ms = now_ms
    # Repeat: where clocks are set forward, the end may lie within the next quiet hours.
    while (end_ms := _quiet_end_ms(at_ms, first, last, length_ms, zone, weekdays)) is not None:
        until_ms = at_ms = end_ms
    return until_ms


def _quiet_end_ms(
    now_ms: int, first: int, last: int, length_ms: int, zone: ZoneInfo, weekdays: frozenset[int]
) -> int | None:
    """Return the next ``end`` after ``now_ms`` if ``now_ms`` lies in quiet hours, else None."""
    now = _local(now_ms, zone)
    ends = _ends(now.toordinal(), last, zone)
    next_end_ms, skipped = next(end for end in ends if end[0] > now_ms)
    minute = now.hour * 60 + now.minute
    quiet = _is_between(minute, first, last) or (skipped and next_end_ms - now_ms <= length_ms)
    return next_end_ms if quiet and _weekday(now, minute, first, last) in weekdays else None


@lru_cache(maxsize=8192)
def _ends(ordinal: int, minute: int, zone: ZoneInfo) -> tuple[tuple[int, bool], ...]:
    """Return when (ms) the neighbouring days reach ``minute``, and whether clocks were set forward past it."""
    ends = set()
    for day in (ordinal - 1, ordinal, ordinal + 1, ordinal + 2):
        wall = datetime.combine(date.fromordinal(day), time(minute // 60, minute % 60), zone)
        skipped = _is_skipped(wall)
        ends.add((_ms(wall), skipped))
        if not skipped:
            ends.add((_ms(wall.replace(fold=1)), False))
    return tuple(sorted(ends))


def period_start_ms(at_ms: int, per: Period, zone: ZoneInfo) -> int:
    """Return the start of the calendar day, week (from Monday) or month that contains ``at_ms``.

    A period starts at the first moment of its first day. Periods follow each other without a gap: where clocks are set
    back over midnight, the new day continues.
    """
    return _period_ms(at_ms, per, zone)[0]


def period_end_ms(at_ms: int, per: Period, zone: ZoneInfo) -> int:
    """Return the start of the next day, week or month, see ``period_start_ms``."""
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
    """Return the first moment whose local date is ``day`` or later."""
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
    """Whether this local time never occurs, because clocks are set forward past it."""
    return wall.astimezone(UTC).astimezone(wall.tzinfo).replace(tzinfo=None) != wall.replace(tzinfo=None)


def _local(at_ms: int, zone: ZoneInfo) -> datetime:
    # Times that calendars do not have, such as of a record whose producer gave nanoseconds, are at their edges.
    return datetime.fromtimestamp(min(max(at_ms // 1000, _FIRST_S), _LAST_S), zone)


def _ms(wall: datetime) -> int:
    return int(wall.timestamp()) * 1000


@cache  # bounded: times in rules only
def _minute_of(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])
