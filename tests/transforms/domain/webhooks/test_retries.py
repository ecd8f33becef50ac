from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.examples import examples
from transforms.domain.base.durations import Duration
from transforms.domain.webhooks.retries import RetrySchedule

DEFAULT = RetrySchedule()
DAY_S = 86_400.0
STARTED_S = 1_784_894_400.0


def test_by_default_pauses_grow_from_10_s_to_6_h_within_3_days() -> None:
    bounds = [(DEFAULT.next_try_s(0.0, 0.0, failures, None, 1.0) or 0.0) for failures in range(1, 16)]
    doubling = [10.0 * 2**number for number in range(12)]
    assert bounds == [*doubling, 21_600.0, 21_600.0, 21_600.0]


@pytest.mark.parametrize(("since_s", "tries"), [(3 * DAY_S, True), (3 * DAY_S + 0.001, False)])
def test_no_attempt_begins_after_3_days(since_s: float, tries: bool) -> None:
    assert (DEFAULT.next_try_s(STARTED_S, STARTED_S + since_s, 5, None, 0.0) is not None) is tries


@pytest.mark.parametrize(
    ("retry_after_s", "pause_s"), [(0.0, 5.0), (60.0, 65.0), (21_600.0, 21_605.0), (1e9, 21_605.0), (None, 5.0)]
)
def test_a_pause_comes_after_retry_after_which_is_limited_to_the_longest_pause(
    retry_after_s: float | None, pause_s: float
) -> None:
    assert DEFAULT.next_try_s(0.0, 0.0, 1, retry_after_s, 0.5) == pause_s


durations = st.integers(1, 400_000).map(lambda seconds: Duration(seconds * 1000))
schedules = st.builds(
    lambda span, other, factor, give_up: RetrySchedule(
        first=min(span, other, key=lambda duration: duration.ms),
        longest=max(span, other, key=lambda duration: duration.ms),
        factor=factor,
        give_up_after=give_up,
    ),
    durations,
    durations,
    st.floats(1, 10),
    durations,
)


@examples(300)
@given(
    schedule=schedules,
    chances=st.lists(st.floats(0, 1), min_size=60, max_size=60),
    retry_afters=st.lists(st.none() | st.floats(0, 1e9), min_size=60, max_size=60),
)
def test_every_pause_is_within_its_bounds_and_attempts_end(
    schedule: RetrySchedule, chances: list[float], retry_afters: list[float | None]
) -> None:
    now_s, ends_s = STARTED_S, STARTED_S + schedule.give_up_after.ms / 1000
    first_s, longest_s = schedule.first.ms / 1000, schedule.longest.ms / 1000
    before_s = 0.0
    for failures, (chance, retry_after_s) in enumerate(zip(chances, retry_afters, strict=True), 1):
        # The expected bound: it only grows, up to the longest pause.
        bound_s = before_s * schedule.factor if before_s else first_s
        bound_s = before_s = min(bound_s, longest_s)
        minimum_s = min(retry_after_s or 0.0, longest_s)
        latest_s = now_s + minimum_s + bound_s
        next_s = schedule.next_try_s(STARTED_S, now_s, failures, retry_after_s, chance)
        if next_s is None:
            assert latest_s > ends_s - 0.001
            return
        assert now_s + minimum_s <= next_s <= latest_s + 0.001 + 1e-9 * bound_s
        assert next_s <= ends_s
        assert next_s == pytest.approx(now_s + minimum_s + chance * bound_s, rel=0, abs=0.001 + 1e-9 * bound_s)
        now_s = next_s


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_the_bound_does_not_shrink_with_the_number_of_failures(failures: int, chance: float) -> None:
    now, later = (DEFAULT.next_try_s(0.0, 0.0, count, None, chance) for count in (failures, failures + 1))
    assert now is not None
    assert later is not None
    assert now <= later <= 21_600


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"first": "7h"}, r"first \(7h\) is longer than longest \(6h\)"),
        ({"factor": 0.9}, "greater than or equal to 1"),
        ({"factor": 11}, "less than or equal to 10"),
        ({"longest": "soon"}, "a duration is a whole number and a unit"),
    ],
)
def test_an_inconsistent_schedule_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RetrySchedule.model_validate(fields)
