"""What a slot drops never matters: against a list that keeps every firing until its time is over."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS, rule
from tests.examples import examples
from tests.oracle import DAY_MS, HOUR_MS, period_end, period_of
from transforms.domain.rules.firings import Firings, Slot
from transforms.domain.rules.frequency import EVENT_TIME, RECORD_TIME, caps, cools_down, firings_of
from transforms.domain.rules.state import RuleState, zone_for

LATENESS_MS = 2 * HOUR_MS
# On both sides of the date line, and around daylight saving.
ZONES = ["Pacific/Kiritimati", "Etc/GMT+12", "America/New_York", "UTC", None]
MARCH_MS = NOW_MS + 69 * DAY_MS  # two days before New York sets clocks forward
# Event time, by hours from the stream's time; record time likewise; None: that of the event.
TIMES = st.one_of(st.integers(-2, 3), st.integers(-2, 3), st.integers(-40, 20))
MOVES = st.one_of(
    *[st.tuples(st.just("fire"), TIMES, st.none() | TIMES, st.sampled_from(ZONES))] * 4,
    st.tuples(st.just("stream"), st.sampled_from([1, 1, 2, 5, 30])),
    st.just(("restore",)),
    st.just(("probe",)),
)
SESSIONS = st.lists(st.lists(MOVES, min_size=1, max_size=15), min_size=1, max_size=6)


@dataclass
class Remembered:
    at_ms: int
    received_ms: int
    until_ms: int


def window_starts(window_ms: int) -> Callable[[int, int, str], bool]:
    return lambda firing_ms, at_ms, zone: firing_ms > at_ms - window_ms


def day_starts(firing_ms: int, at_ms: int, zone: str) -> bool:
    return day_of(firing_ms, zone) >= day_of(at_ms, zone)


@functools.cache
def day_of(at_ms: int, zone: str) -> date:
    return period_of(at_ms, "day", zone)


KINDS: dict[str, tuple[dict[str, Any], Callable[[int, int, str], bool]]] = {
    **{f"{count} in 4h": ({"count": count, "window": "4h"}, window_starts(4 * HOUR_MS)) for count in (1, 2, 3, 5)},
    **{f"{count} per day": ({"count": count, "per": "day"}, day_starts) for count in (1, 2)},
    "cooldown": ({}, window_starts(4 * HOUR_MS)),
}


@pytest.mark.parametrize("kind", KINDS)
@examples(400, same=100)
@given(SESSIONS)
def test_a_slot_decides_as_a_list_that_keeps_everything(kind: str, parts: list[list[tuple[Any, ...]]]) -> None:
    fields, counts = KINDS[kind]
    made = rule("r", cap=fields) if fields else rule("r", cooldown="4h")
    count = fields.get("count", 1)
    state, kept, stream_ms = RuleState(), list[Remembered](), MARCH_MS

    def stopped(at_ms: int, received_ms: int, zone: str) -> str | None:
        if sum(counts(firing.at_ms, at_ms, zone) for firing in kept) >= count:
            return EVENT_TIME
        return RECORD_TIME if sum(counts(firing.received_ms, received_ms, zone) for firing in kept) >= count else None

    def decided(at_ms: int, received_ms: int, zone: str | None) -> str | None:
        profile = {} if zone is None else {"timezone": zone}
        found = caps(state, made, functools.partial(zone_for, made.time_zone, profile), at_ms, received_ms)
        return found if fields else cools_down(state, made, None, at_ms, received_ms)

    for name, *arguments in (move for part in parts for move in part):
        if name == "restore":
            state = RuleState.unpack(state.pack("u"))
        elif name == "probe":
            for hours, received_hours in itertools.product(range(-45, 25, 2), (-30, 0, 1, 5)):
                probe = stream_ms + hours * HOUR_MS, stream_ms + received_hours * HOUR_MS
                assert decided(*probe, "UTC") == stopped(*probe, "UTC")
        elif name == "stream":
            stream_ms += arguments[0] * HOUR_MS
            state.expire_firings(stream_ms)
            kept = [firing for firing in kept if firing.until_ms > stream_ms]
        else:
            hours, received_hours, zone = arguments
            at_ms = stream_ms + hours * HOUR_MS
            received_ms = at_ms if received_hours is None else stream_ms + received_hours * HOUR_MS
            assert decided(at_ms, received_ms, zone) == stopped(at_ms, received_ms, zone or "UTC")
            if stopped(at_ms, received_ms, zone or "UTC") is None:
                latest_ms = max(at_ms, received_ms)
                end_ms = latest_ms + 4 * HOUR_MS
                if "per" in fields:
                    end_ms = period_end(latest_ms, "day", zone or "UTC") + 26 * HOUR_MS
                kept.append(Remembered(at_ms, received_ms, end_ms + LATENESS_MS))
                profile = {} if zone is None else {"timezone": zone}
                of_user = functools.partial(zone_for, made.time_zone, profile)
                for slot, keep, until_ms in firings_of(made, of_user, None, latest_ms, LATENESS_MS):
                    state.fire("r", slot, at_ms, keep, until_ms, received_ms - at_ms)
        assert sorted(state.fired) == ([("r", "cap" if fields else "cooldown")] if kept else [])
        assert state.nbytes == RuleState().nbytes + sum(slot.nbytes for slot in state.fired.values())
        assert state.stream_due_ms() == min(
            (firing.until_ms for slot in state.fired.values() for firing in firings_in(slot)), default=None
        )
        if "per" not in fields:  # whose zones change
            assert all(len(kept_slot.times_ms) <= 6 * count for kept_slot in state.fired.values())


def firings_in(slot: Slot) -> list[Remembered]:
    packed = slot.pack()
    return [
        Remembered(at_ms, at_ms + lag_ms, packed.until_ms - early_ms)
        for at_ms, lag_ms, early_ms in zip(packed.times_ms, packed.lags_ms, packed.early_ms, strict=True)
    ]


def test_a_slot_keeps_no_more_than_it_counts_where_times_only_grow() -> None:
    slot = Slot("r", "cap")
    for number in range(100):
        slot.add(number, number + 5, 3, number + 50)
        assert slot.times_ms == list(range(max(0, number - 2), number + 1))
    assert slot.pack() == Firings("r", "cap", [97, 98, 99], 149, [5, 5, 5], [2, 1, 0], 3)


def test_a_slot_is_bounded_while_a_clock_that_is_ahead_holds_a_place() -> None:
    slot = Slot("r", "cap")
    slot.add(10_000, 0, 2, 20_000)
    for number in range(0, 10_000, 10):
        slot.add(number, number, 2, 20_000 - 10_000 + number)
    assert len(slot.times_ms) <= 12
    assert (slot.times_ms[-2:], slot.received_ms[-2:]) == ([9_990, 10_000], [9_980, 9_990])


def test_a_firing_that_outlasts_those_that_cover_it_is_kept() -> None:
    """A cap of two in ten. The event time 60 is later than 50 and ends before it does."""
    slot = Slot("r", "cap")
    for at_ms, received_ms in ((0, 0), (40, 110), (60, 90), (50, 100), (120, 120)):
        slot.add(at_ms, received_ms, 2, max(at_ms, received_ms) + 10)
    slot.expire(100)
    assert slot.times_ms[-2:] == [50, 120]


def test_a_cap_of_a_thousand_is_kept_quickly() -> None:
    slot = Slot("r", "cap")
    for number in range(20_000):
        slot.add(number, number + number % 7, 1000, number + 10_000)
    assert 1000 <= len(slot.times_ms) <= 2000
