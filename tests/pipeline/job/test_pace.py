"""How fast letters are sent."""

from __future__ import annotations

from pipeline.job.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now_s += seconds


def test_a_rate_is_kept_evenly_and_time_that_passed_is_not_caught_up_with() -> None:
    clock = Clock()
    pace = Pace(4.0, lambda: clock.now_s, clock.sleep)
    for _ in range(3):
        pace.wait()
    assert clock.slept == [0.25, 0.25]
    clock.now_s += 10
    pace.wait()
    pace.wait()
    assert clock.slept == [0.25, 0.25, 0.25]
    free = Pace(None, lambda: clock.now_s, clock.sleep)
    free.wait()
    free.wait()
    assert len(clock.slept) == 3
