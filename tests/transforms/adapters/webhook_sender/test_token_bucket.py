from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from transforms.adapters.webhook_sender.lanes import TokenBucket


def granted_by_hand(asked_s: list[float], rate: float) -> list[float]:
    """As early as may be, in order, so that no span of time has more than one and what the rate adds to it."""
    granted: list[float] = []
    for now_s in asked_s:
        earliest = [now_s]
        for first, at_s in enumerate(granted):
            count = len(granted) - first + 1  # those from `first` on, and this one
            earliest.append(at_s + (count - 1) / rate)
        granted.append(max(earliest))
    return granted


@examples(500)
@given(
    gaps=st.lists(st.sampled_from([0.0, 0.0, 0.01]) | st.floats(0, 5), max_size=40),
    rate=st.floats(0.1, 50),
)
def test_it_allows_what_an_oracle_allows(gaps: list[float], rate: float) -> None:
    bucket = TokenBucket(rate)
    asked_s: list[float] = []
    now_s = 1000.0
    for gap in gaps:
        now_s += gap
        asked_s.append(now_s)
    granted = [now_s + bucket.take(now_s) for now_s in asked_s]
    assert granted == pytest.approx(granted_by_hand(asked_s, rate))


def test_the_first_is_free_and_the_rest_comes_at_the_rate() -> None:
    bucket = TokenBucket(10)
    assert [bucket.take(0.0) for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    # The bucket is full again, and holds no more than before.
    assert [bucket.take(100.0) for _ in range(2)] == pytest.approx([0, 0.1])


def test_threads_share_it() -> None:
    bucket = TokenBucket(1)
    waits: list[float] = []
    threads = [threading.Thread(target=lambda: waits.extend(bucket.take(0.0) for _ in range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(waits) == [float(number) for number in range(2000)]
