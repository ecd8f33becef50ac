"""Local time against brute force: the tests read the local clock minute by minute."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.examples import examples
from transforms.domain.base.calendar import Period, period_end_ms, period_start_ms, quiet_until_ms, rfc_3339, zone_of

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MINUTES = 24 * 60


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


# Zones and days on which their clocks change.
DAYS = [
    ("UTC", "2024-02-28"),
    ("Asia/Kathmandu", "2024-12-30"),
    ("Europe/Berlin", "2024-03-31"),
    ("Europe/Berlin", "2024-10-27"),
    ("America/New_York", "2024-03-10"),
    ("America/New_York", "2024-11-03"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("America/Sao_Paulo", "2018-11-04"),  # no midnight
    ("Asia/Beirut", "2024-03-31"),  # no midnight
    ("Asia/Beirut", "2024-10-27"),
    ("America/Havana", "2024-03-10"),  # no midnight
    ("America/Havana", "2024-11-03"),  # two midnights
    ("America/St_Johns", "2010-03-14"),  # 00:01 to 01:01
    ("America/St_Johns", "2010-11-07"),  # 00:01 to 23:01
    ("America/Scoresbysund", "2024-03-31"),  # by two hours of offset, in one night
    ("Australia/Lord_Howe", "2024-10-06"),  # by half an hour
    ("Australia/Lord_Howe", "2024-04-07"),
    ("Pacific/Apia", "2011-12-30"),  # no such day
    ("America/Goose_Bay", "2010-03-14"),
    ("America/Toronto", "1974-04-28"),
    ("Antarctica/Troll", "2024-03-31"),  # by two hours
    ("Asia/Pyongyang", "2018-05-04"),  # 23:30 to 00:00
    ("Antarctica/Casey", "2018-03-11"),  # by three hours, back
]


@lru_cache(maxsize=64)
def local_minutes(zone: str, day: str) -> tuple[int, list[datetime]]:
    """The first minute (ms) and the local time of every minute, from four days before the day to four days after."""
    first = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=4)
    info = ZoneInfo(zone)
    shown = [(first + timedelta(minutes=n)).astimezone(info).replace(tzinfo=None) for n in range(8 * DAY_MINUTES)]
    return int(first.timestamp()) * 1000, shown


def quiet_minutes(shown: list[datetime], start: int, end: int) -> tuple[list[bool], list[bool]]:
    """For every minute: whether it is quiet, and whether quiet hours end at it.

    Where clocks are set forward past ``end``, a clock that was not set forward continues until ``end``.
    """
    quiet, over = [], []
    unchanged: datetime | None = None
    for before, now in zip([shown[0] - timedelta(minutes=1), *shown], shown, strict=False):
        skipped = (before + timedelta(minutes=n) for n in range(1, (now - before) // timedelta(minutes=1)))
        if any(minute_of(clock) == end for clock in skipped):
            unchanged = before
        clocks = [now]
        if unchanged is not None:
            unchanged += timedelta(minutes=1)
            clocks.append(unchanged)
            if minute_of(unchanged) == end:
                unchanged = None
        minutes = [minute_of(clock) for clock in clocks]
        quiet.append(any(start <= minute < end if start < end else not end <= minute < start for minute in minutes))
        over.append(end in minutes and not quiet[-1])
    return quiet, over


def minute_of(clock: datetime) -> int:
    return clock.hour * 60 + clock.minute


def hh_mm(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


times_of_day = st.one_of(
    st.integers(0, DAY_MINUTES - 1),
    st.sampled_from([0, 1, 30, 60, 90, 120, 150, 179, 180, 210, 22 * 60, 23 * 60, 23 * 60 + 30, 23 * 60 + 59]),
)


@pytest.mark.slow
@pytest.mark.parametrize(("zone", "day"), DAYS)
@examples(20)
@given(start=times_of_day, end=times_of_day)
@example(start=22 * 60, end=8 * 60)
@example(start=22 * 60, end=150)
@example(start=135, end=165)
@example(start=165, end=135)
@example(start=23 * 60 + 45, end=15)
@example(start=0, end=60)
@example(start=190, end=150)
def test_quiet_hours_agree_with_a_search_minute_by_minute(zone: str, day: str, start: int, end: int) -> None:
    if start == end:
        return
    first_ms, shown = local_minutes(zone, day)
    quiet, over = quiet_minutes(shown, start, end)
    info = ZoneInfo(zone)
    for n in range(DAY_MINUTES, 5 * DAY_MINUTES, 7):
        until_ms = quiet_until_ms(first_ms + n * MINUTE_MS + 59_999, hh_mm(start), hh_mm(end), info)
        expected = first_ms + over.index(True, n + 1) * MINUTE_MS if quiet[n] else None
        assert until_ms == expected, shown[n]


@pytest.mark.parametrize(
    ("zone", "hours", "now", "until"),
    [
        ("Europe/Berlin", ("22:00", "08:00"), "2024-01-10T21:59:59.999+01:00", None),
        ("Europe/Berlin", ("22:00", "08:00"), "2024-01-10T22:00:00+01:00", "2024-01-11T08:00:00+01:00"),
        ("Europe/Berlin", ("22:00", "08:00"), "2024-01-11T07:59:59.999+01:00", "2024-01-11T08:00:00+01:00"),
        ("Europe/Berlin", ("22:00", "08:00"), "2024-01-11T08:00:00+01:00", None),
        ("Europe/Berlin", ("12:00", "14:00"), "2024-01-10T13:00:00+01:00", "2024-01-10T14:00:00+01:00"),
        ("Europe/Berlin", ("22:00", "00:00"), "2024-01-10T23:59:00+01:00", "2024-01-11T00:00:00+01:00"),
        # 02:30 does not come: an hour later. The clock that was not set forward counts on.
        ("Europe/Berlin", ("22:00", "02:30"), "2024-03-31T01:59:00+01:00", "2024-03-31T03:30:00+02:00"),
        ("Europe/Berlin", ("22:00", "02:30"), "2024-03-31T03:15:00+02:00", "2024-03-31T03:30:00+02:00"),
        ("Europe/Berlin", ("22:00", "02:30"), "2024-03-31T03:30:00+02:00", None),
        # 02:30 comes twice: at the first. What is decided before the second, when it is quiet again, waits for that.
        ("Europe/Berlin", ("22:00", "02:30"), "2024-10-27T02:29:00+02:00", "2024-10-27T02:30:00+02:00"),
        ("Europe/Berlin", ("22:00", "02:30"), "2024-10-27T02:30:00+02:00", None),
        ("Europe/Berlin", ("22:00", "02:30"), "2024-10-27T02:00:00+01:00", "2024-10-27T02:30:00+01:00"),
        ("Europe/Berlin", ("22:00", "02:30"), "2024-10-27T02:30:00+01:00", None),
        # A night with an hour more, and a day that is not there.
        ("Europe/Berlin", ("22:00", "08:00"), "2024-10-26T23:00:00+02:00", "2024-10-27T08:00:00+01:00"),
        ("Pacific/Apia", ("22:00", "08:00"), "2011-12-29T23:00:00-10:00", "2011-12-31T08:00:00+14:00"),
        # 02:30 comes at 03:30, when the next quiet hours have begun.
        ("Europe/Berlin", ("03:10", "02:30"), "2024-03-31T01:59:00+01:00", "2024-04-01T02:30:00+02:00"),
    ],
)
def test_quiet_hours_end_when_people_expect_it(zone: str, hours: tuple[str, str], now: str, until: str | None) -> None:
    assert quiet_until_ms(ms(now), *hours, ZoneInfo(zone)) == (until and ms(until))


def period_of(day: datetime, per: Period) -> str:
    return {"day": f"{day:%Y-%m-%d}", "week": f"{day:%G-%V}", "month": f"{day:%Y-%m}"}[per]


@pytest.mark.slow
@pytest.mark.parametrize("per", ["day", "week", "month"])
@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_periods_begin_where_a_search_minute_by_minute_first_finds_their_date(zone: str, day: str, per: Period) -> None:
    """A boundary is a minute whose date is of a later period than that of every minute before."""
    info = ZoneInfo(zone)
    first_ms = ms(f"{day}T00:00:00+00:00") - 40 * DAY_MINUTES * MINUTE_MS
    boundaries, latest = [], ""
    for at_ms in range(first_ms, first_ms + 80 * DAY_MINUTES * MINUTE_MS, 15 * MINUTE_MS):
        # Every quarter of an hour, then every minute before a boundary.
        period = period_of(datetime.fromtimestamp(at_ms / 1000, info), per)
        if period > latest:
            if latest:
                minutes = range(at_ms - 15 * MINUTE_MS, at_ms + MINUTE_MS, MINUTE_MS)
                boundaries.append(
                    next(m for m in minutes if period_of(datetime.fromtimestamp(m / 1000, info), per) > latest)
                )
            latest = period
    assert len(boundaries) >= 2
    for start_ms, end_ms in pairwise(boundaries):
        for at_ms in {start_ms, start_ms + 1, (start_ms + end_ms) // 2, end_ms - 1, *range(start_ms, end_ms, HOUR_MS)}:
            assert (period_start_ms(at_ms, per, info), period_end_ms(at_ms, per, info)) == (start_ms, end_ms)


@pytest.mark.parametrize(
    ("zone", "at", "per", "start", "end"),
    [
        ("Europe/Berlin", "2024-05-15T12:00+02:00", "week", "2024-05-13T00:00+02:00", "2024-05-20T00:00+02:00"),
        ("Europe/Berlin", "2024-03-31T12:00+02:00", "day", "2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00"),
        ("Europe/Berlin", "2024-03-31T12:00+02:00", "month", "2024-03-01T00:00+01:00", "2024-04-01T00:00+02:00"),
        ("UTC", "2024-12-31T23:59:59.999+00:00", "month", "2024-12-01T00:00+00:00", "2025-01-01T00:00+00:00"),
        ("America/Sao_Paulo", "2018-11-04T01:00-02:00", "day", "2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00"),
        ("America/Sao_Paulo", "2018-11-03T23:59-03:00", "day", "2018-11-03T00:00-03:00", "2018-11-04T00:00-03:00"),
        ("Asia/Beirut", "2024-03-31T12:00+03:00", "day", "2024-03-31T01:00+03:00", "2024-04-01T00:00+03:00"),
        ("America/Havana", "2024-11-03T00:30-05:00", "day", "2024-11-03T00:00-04:00", "2024-11-04T00:00-05:00"),
        # Clocks were set from 00:01 back to 23:01 of the day before: the new day goes on.
        ("America/St_Johns", "2010-11-06T23:30-03:30", "day", "2010-11-07T00:00-02:30", "2010-11-08T00:00-03:30"),
        # From 23:30 to 00:30: the day began half an hour before a clock that was not set forward shows midnight.
        ("America/Toronto", "1919-03-31T00:45-04:00", "day", "1919-03-31T00:30-04:00", "1919-04-01T00:00-04:00"),
        ("Pacific/Apia", "2011-12-29T12:00-10:00", "day", "2011-12-29T00:00-10:00", "2011-12-31T00:00+14:00"),
        ("Pacific/Apia", "2011-12-31T12:00+14:00", "day", "2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"),
    ],
)
def test_periods_are_those_of_a_calendar(zone: str, at: str, per: Period, start: str, end: str) -> None:
    info = ZoneInfo(zone)
    assert (period_start_ms(ms(at), per, info), period_end_ms(ms(at), per, info)) == (ms(start), ms(end))


@examples(300)
@given(
    at_ms=st.integers(1, ms("2100-01-01T00:00+00:00")),
    zone=st.sampled_from(sorted(available_timezones())),
    per=st.sampled_from(["day", "week", "month"]),
)
def test_periods_follow_each_other_without_a_gap(at_ms: int, zone: str, per: Period) -> None:
    info = ZoneInfo(zone)
    start_ms, end_ms = period_start_ms(at_ms, per, info), period_end_ms(at_ms, per, info)
    assert start_ms <= at_ms < end_ms
    assert period_start_ms(start_ms, per, info) == start_ms
    assert period_end_ms(end_ms - 1, per, info) == end_ms
    assert period_start_ms(end_ms, per, info) == end_ms
    assert period_end_ms(start_ms - 1, per, info) == start_ms


def test_a_zone_is_found_by_its_name() -> None:
    for name in ("Europe/Berlin", "UTC", "Etc/GMT+5", "America/Argentina/Buenos_Aires"):
        assert zone_of(name) == ZoneInfo(name)
        assert zone_of(name) is zone_of(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "../x", "/etc/passwd", "Europe", "Europe/", "europe/berlin", "Europe/Berlin\0", " UTC", "localtime"),
        *("posixrules", "right/UTC", "posix/UTC", "leapseconds", "zone.tab", "tzdata.zi", "Ä", "x" * 100_000, "\ud800"),
        *(None, 1, True, 1.5, b"UTC", [], {}, ("UTC",)),
    ],
    ids=lambda name: repr(name)[:20],
)
def test_a_text_that_is_not_a_zone_name_has_no_zone(name: object) -> None:
    assert zone_of(name) is None


def test_a_machine_without_zone_files_knows_the_zones() -> None:
    code = "from transforms.domain.base.calendar import zone_of; print(zone_of('Europe/Berlin'))"
    environment = {**os.environ, "PYTHONTZPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"Europe/Berlin\n"


@pytest.mark.parametrize(
    "at_ms", [-(2**63), -62_135_596_800_000, 253_402_300_799_999, 1_704_067_200_000_000_000, 2**63]
)
def test_a_time_that_no_calendar_has_is_at_its_edge(at_ms: int) -> None:
    zone = ZoneInfo("Pacific/Kiritimati")
    pers: tuple[Period, ...] = ("day", "week", "month")
    for per in pers:
        assert period_start_ms(at_ms, per, zone) < period_end_ms(at_ms, per, zone)
    assert quiet_until_ms(at_ms, "00:00", "23:59", zone) is None
    assert rfc_3339(at_ms) in ("0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z")
