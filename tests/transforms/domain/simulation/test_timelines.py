from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.simulation.timelines import Timeline, next_width_ms, wider

MINUTE_MS = 60_000


def test_counts_within_a_minute_share_a_bucket() -> None:
    timeline = Timeline()
    for at_ms, number in ((0, 1), (59_999, 2), (60_000, 1), (600_000, 5)):
        timeline.add(at_ms, number)
    assert (timeline.width_ms, timeline.buckets()) == (MINUTE_MS, [(0, 3), (60_000, 1), (600_000, 5)])


def test_every_width_is_a_multiple_of_the_one_before() -> None:
    widths = [MINUTE_MS]
    while len(widths) < 12:
        widths.append(next_width_ms(widths[-1]))
    assert [width // MINUTE_MS for width in widths] == [
        1,
        5,
        15,
        60,
        180,
        360,
        720,
        1440,
        2880,
        5760,
        11520,
        23040,
    ]
    assert all(after % before == 0 for before, after in pairwise(widths))


@given(st.lists(st.integers(0, 400 * 24 * 60 * MINUTE_MS), max_size=200), st.integers(1, 20))
def test_no_count_is_lost_when_buckets_are_merged(times_ms: list[int], max_buckets: int) -> None:
    timeline = Timeline(max_buckets)
    for at_ms in times_ms:
        timeline.add(at_ms)
    buckets = timeline.buckets()
    assert len(buckets) <= max_buckets
    width_ms = timeline.width_ms
    assert buckets == sorted(Counter(at_ms - at_ms % width_ms for at_ms in times_ms).items())
    later_ms = next_width_ms(width_ms)
    assert wider(buckets, later_ms) == sorted(Counter(at_ms - at_ms % later_ms for at_ms in times_ms).items())
