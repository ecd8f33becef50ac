from __future__ import annotations

from tests.builders import filter_set, rule
from tests.transforms.domain.rules.test_filters import evaluate
from transforms.domain.rules.filters import FilterResult
from transforms.domain.rules.quarantine import Quarantine


def quarantine() -> Quarantine:
    return Quarantine(trips=3, window_ms=1000, pause_ms=100, longest_pause_ms=300)


def test_a_rule_that_trips_three_times_is_set_aside_and_comes_back_after_a_pause() -> None:
    kept = quarantine()
    assert [kept.trip("r", now_ms) for now_ms in (0, 10, 20)] == [False, False, True]
    assert kept.until_ms("r") == 120
    assert [kept.allows("r", now_ms) for now_ms in (20, 119, 120, 121)] == [False, False, True, True]
    assert kept.allows("other", 20)


def test_a_rule_on_trial_is_set_aside_by_its_next_trip_for_twice_as_long_up_to_a_bound() -> None:
    kept = quarantine()
    for now_ms in (0, 0, 0):
        kept.trip("r", now_ms)
    pauses, now_ms = [], 100
    for _ in range(4):
        assert kept.allows("r", now_ms)
        assert kept.trip("r", now_ms)
        until_ms = kept.until_ms("r")
        assert until_ms is not None
        pauses.append(until_ms - now_ms)
        now_ms = until_ms
    assert pauses == [200, 300, 300, 300]


def test_trips_that_are_far_apart_do_not_add_up() -> None:
    kept = quarantine()
    assert [kept.trip("r", now_ms) for now_ms in (0, 999, 1000, 1998, 1999)] == [False, False, False, True, False]
    other = quarantine()
    assert [other.trip("r", now_ms) for now_ms in range(0, 6000, 600)] == [False] * 10


def test_a_rule_that_has_behaved_for_a_window_is_forgiven() -> None:
    kept = quarantine()
    for now_ms in (0, 0, 0):
        kept.trip("r", now_ms)
    assert kept.allows("r", 1100)
    assert not kept
    assert [kept.trip("r", 1200) for _ in range(3)] == [False, False, True]


def test_one_trip_is_forgotten_after_a_window() -> None:
    kept = quarantine()
    kept.trip("r", 0)
    assert kept
    assert kept.allows("r", 999)
    assert kept
    assert kept.allows("r", 1000)
    assert not kept


def test_a_trip_of_a_call_that_began_before_the_pause_changes_nothing() -> None:
    kept = quarantine()
    for now_ms in (0, 0, 0):
        kept.trip("r", now_ms)
    assert not kept.trip("r", 50)
    assert kept.until_ms("r") == 100


def test_a_filter_set_does_not_run_a_rule_in_quarantine_and_reports_it() -> None:
    now_ms = [0]
    good, bad, broken = rule("good"), rule("bad", "while true do end"), rule("broken", "event.a.b")
    filters = filter_set((good, bad, broken), quarantine(), lambda: now_ms[0])
    for _ in range(3):
        result = evaluate(filters)
        assert (result.tripped, result.quarantined) == ((bad,), ())
        assert [failed for failed, _ in result.errors] == [bad, broken]
    result = evaluate(filters)
    assert (result.allowed, result.tripped, result.quarantined) == ((good,), (), (bad,))
    # An error is no limit: it costs nothing and stays visible.
    assert [failed for failed, _ in result.errors] == [broken]
    now_ms[0] = 100
    assert evaluate(filters).tripped == (bad,)
    assert evaluate(filters).quarantined == (bad,)


def test_quarantine_that_is_shared_holds_for_every_filter_set() -> None:
    bad = rule("bad", "while true do end")
    shared = quarantine()
    sets = [filter_set((bad,), shared, lambda: 0) for _ in range(3)]
    assert [evaluate(filters).tripped for filters in sets] == [(bad,)] * 3
    assert [evaluate(filters) for filters in sets] == [FilterResult(quarantined=(bad,))] * 3


def test_a_higher_version_of_a_rule_is_another_rule() -> None:
    shared = quarantine()
    bad, repaired = rule("bad", "while true do end"), rule("bad", "true", version=2)
    filters = filter_set((bad,), shared, lambda: 0)
    for _ in range(3):
        evaluate(filters)
    assert evaluate(filters).quarantined == (bad,)
    assert evaluate(filter_set((repaired,), shared, lambda: 0)).allowed == (repaired,)
