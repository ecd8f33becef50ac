from __future__ import annotations

import threading

import pytest

from transforms.adapters.http.breaker import Breaker, Permit


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(clock=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        permit = breaker.enter()
        assert permit is not None
        breaker.leave(permit, healthy=False)


def test_nineteen_failures_in_a_row_leave_it_closed_and_the_twentieth_opens_it(breaker: Breaker) -> None:
    fail(breaker, 19)
    assert not breaker.is_open
    assert breaker.enter() is Permit.NORMAL
    breaker.leave(Permit.NORMAL, healthy=False)
    assert breaker.is_open
    assert breaker.enter() is None


def test_a_success_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 19)
    breaker.leave(Permit.NORMAL, healthy=True)
    fail(breaker, 19)
    assert not breaker.is_open


def test_one_probe_goes_through_after_half_a_second_and_no_other_call(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 20)
    clock.now_s += 0.499
    assert not breaker.allows()
    assert breaker.enter() is None
    clock.now_s += 0.001
    assert breaker.allows()
    assert breaker.enter() is Permit.PROBE
    clock.now_s += 1000
    assert not breaker.allows()
    assert breaker.enter() is None


def test_to_ask_whether_it_allows_takes_no_probe_away(breaker: Breaker, clock: FakeClock) -> None:
    assert breaker.allows()
    fail(breaker, 20)
    clock.now_s += 0.5
    assert breaker.allows()
    assert breaker.allows()
    assert breaker.enter() is Permit.PROBE


def test_the_pause_doubles_up_to_ten_seconds(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 20)
    pauses = []
    for _ in range(7):
        since = clock.now_s
        while (permit := breaker.enter()) is None:
            clock.now_s += 0.25
        pauses.append(clock.now_s - since)
        breaker.leave(permit, healthy=False)
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10]


def test_a_successful_probe_closes_it_and_the_next_pause_is_short_again(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 20)
    clock.now_s += 0.5
    fail(breaker, 1)
    clock.now_s += 1
    assert breaker.enter() is Permit.PROBE
    breaker.leave(Permit.PROBE, healthy=True)
    assert breaker.enter() is Permit.NORMAL
    fail(breaker, 20)
    clock.now_s += 0.5
    assert breaker.enter() is Permit.PROBE


def test_stragglers_that_fail_do_not_lengthen_the_pause(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 20)
    clock.now_s += 0.4
    for _ in range(100):
        breaker.leave(Permit.NORMAL, healthy=False)
    clock.now_s += 0.1
    assert breaker.enter() is Permit.PROBE
    breaker.leave(Permit.NORMAL, healthy=False)
    assert breaker.enter() is None  # the probe is still on its way


def test_a_straggler_that_succeeds_closes_it(breaker: Breaker) -> None:
    fail(breaker, 20)
    breaker.leave(Permit.NORMAL, healthy=True)
    assert breaker.enter() is Permit.NORMAL


def test_of_many_threads_one_gets_the_probe(breaker: Breaker, clock: FakeClock) -> None:
    fail(breaker, 20)
    clock.now_s += 1
    ready = threading.Barrier(16)
    got: list[Permit | None] = []

    def enter() -> None:
        ready.wait(10)
        got.append(breaker.enter())

    threads = [threading.Thread(target=enter) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert got.count(Permit.PROBE) == 1
    assert got.count(None) == 15
