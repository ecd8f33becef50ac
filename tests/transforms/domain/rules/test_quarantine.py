from __future__ import annotations

from contextlib import closing

import pytest

from tests.builders import filter_set, rule
from tests.transforms.domain.rules.test_filters import evaluate
from transforms.adapters.lua.engines import Isolation
from transforms.domain.rules.filters import FilterResult
from transforms.domain.rules.quarantine import Quarantine


def quarantine() -> Quarantine:
    return Quarantine(trips=3, window_ms=1000, pause_ms=100, longest_pause_ms=300)


def test_a_rule_that_trips_three_times_is_set_aside_and_comes_back_after_a_pause() -> None:
    kept = quarantine()
    assert [kept.trip("r", "u", now_ms) for now_ms in (0, 10, 20)] == [False, False, True]
    assert kept.until_ms("r", "u") == 120
    assert [kept.allows("r", "u", now_ms) for now_ms in (20, 119, 120, 121)] == [False, False, True, True]
    assert kept.allows("other", "u", 20)


def test_a_rule_on_trial_is_set_aside_by_its_next_trip_for_twice_as_long_up_to_a_bound() -> None:
    kept = quarantine()
    for now_ms in (0, 0, 0):
        kept.trip("r", "u", now_ms)
    pauses, now_ms = [], 100
    for _ in range(4):
        assert kept.allows("r", "u", now_ms)
        assert kept.trip("r", "u", now_ms)
        until_ms = kept.until_ms("r", "u")
        assert until_ms is not None
        pauses.append(until_ms - now_ms)
        now_ms = until_ms
    assert pauses == [200, 300, 300, 300]


def test_trips_that_are_far_apart_do_not_add_up() -> None:
    kept = quarantine()
    assert [kept.trip("r", "u", now_ms) for now_ms in (0, 999, 1000, 1998, 1999)] == [False, False, False, True, False]
    other = quarantine()
    assert [other.trip("r", "u", now_ms) for now_ms in range(0, 6000, 600)] == [False] * 10


def test_a_rule_that_has_behaved_for_a_window_is_forgiven() -> None:
    kept = quarantine()
    for now_ms in (0, 0, 0):
        kept.trip("r", "u", now_ms)
    assert kept.allows("r", "u", 1100)
    assert not kept
    assert [kept.trip("r", "u", 1200) for _ in range(3)] == [False, False, True]


def test_one_trip_is_forgotten_after_a_window() -> None:
    kept = quarantine()
    kept.trip("r", "u", 0)
    assert kept
    assert kept.allows("r", "u", 999)
    assert kept
    assert kept.allows("r", "u", 1000)
    assert not kept


def test_a_trip_of_a_call_that_began_before_the_pause_changes_nothing() -> None:
    kept = quarantine()
    for now_ms in (0, 0, 0):
        kept.trip("r", "u", now_ms)
    assert not kept.trip("r", "u", 50)
    assert kept.until_ms("r", "u") == 100


def test_a_rule_is_set_aside_for_the_user_whose_events_trip_and_for_nobody_else() -> None:
    kept = quarantine()
    assert [kept.trip("r", user, now_ms) for now_ms, user in enumerate("abaa")] == [False, False, False, True]
    assert [kept.allows("r", user, 5) for user in "abc"] == [False, True, True]
    assert (kept.until_ms("r"), kept.until_ms("r", "a")) == (None, 103)


def test_a_rule_that_trips_for_many_users_is_set_aside_for_all() -> None:
    kept = quarantine()
    kept.evaluated(20, 0)
    assert [kept.trip("r", user, 0) for user in "abc"] == [False, False, True]
    assert [kept.allows(name, "z", 99) for name in ("r", "other")] == [False, True]
    assert kept.allows("r", "z", 100)
    # On trial, one trip in few evaluations is enough, and one in many is not.
    kept.evaluated(1000, 110)
    assert not kept.trip("r", "z", 110)
    assert kept.allows("r", "y", 110)
    other = quarantine()
    for user in "abc":
        other.trip("r", user, 0)
    other.evaluated(5, 110)
    assert other.trip("r", "z", 110)
    assert other.until_ms("r") == 310


def test_made_up_ids_do_not_set_a_rule_aside_for_all() -> None:
    kept = Quarantine(trips=3, window_ms=1000, pause_ms=100, trip_share=0.05)
    for now_ms in range(500):
        kept.evaluated(30, now_ms)
        assert not kept.trip("r", f"made up {now_ms}", now_ms)
    assert kept.allows("r", "somebody", 500)
    kept.evaluated(1, 2000)
    assert [kept.trip("r", f"made up {number}", 2000) for number in range(3)] == [False, False, True]


def test_records_of_made_up_ids_are_bounded_and_forgotten() -> None:
    kept = quarantine()
    kept.evaluated(10**9, 0)
    for number in range(2000):
        kept.trip("r", f"made up {number}", 0)
        assert kept.until_ms("r", f"made up {number}") is None
    assert 900 < len(kept.records) <= 1000
    kept.evaluated(1, 100_000)
    assert not kept


def test_a_rule_that_takes_too_large_a_share_of_a_minute_is_set_aside() -> None:
    kept = Quarantine(pause_ms=100, time_share=0.5)
    # 49 ms on each event of a hundred users, twenty events a second.
    set_aside = [now_ms for now_ms in range(0, 60_000, 50) if kept.spent("r", f"u{now_ms // 50 % 100}", 49, now_ms)]
    assert set_aside[0] == 30_600
    assert not kept.allows("r", "somebody", 30_699)
    assert kept.allows("other", "u1", 30_601)
    assert kept.allows("r", "somebody", 30_700)


def test_few_users_who_take_a_rule_s_time_lose_it_alone() -> None:
    kept = Quarantine(pause_ms=100, time_share=0.5)
    now_ms = 0
    while not kept.spent("r", "ab"[now_ms % 2], 49, now_ms):
        kept.spent("r", f"u{now_ms}", 1, now_ms)
        now_ms += 1
    assert [kept.allows("r", user, now_ms) for user in ("a", "b", "u1", "new")] == [False, False, True, True]


def test_one_user_alone_who_takes_a_rule_s_time_loses_it() -> None:
    kept = Quarantine(time_share=0.1)
    while not kept.spent("r", "a", 49, 0):
        pass
    assert [kept.allows("r", user, 1) for user in "ab"] == [False, True]


@pytest.mark.parametrize(("ms", "every_ms", "share"), [(49, 100, 0.5), (20, 50, 0.5), (1, 1, 1)])
def test_a_rule_within_its_share_goes_on(ms: int, every_ms: int, share: float) -> None:
    kept = Quarantine(time_share=share)
    assert not any(kept.spent("r", f"u{now_ms}", ms, now_ms) for now_ms in range(0, 300_000, every_ms))


def test_time_of_long_ago_does_not_add_up() -> None:
    kept = Quarantine(time_share=0.5)
    assert not any(kept.spent("r", "u", 29_000, now_ms) for now_ms in range(0, 900_000, 90_000))


def test_a_filter_set_counts_the_trips_of_each_user() -> None:
    bad = rule("bad", "while event.user_id == 'bad' do end return true")
    filters = filter_set((bad,), quarantine(), lambda: 0)
    for _ in range(3):
        assert evaluate(filters, {"user_id": "bad"}).tripped == (bad,)
    assert evaluate(filters, {"user_id": "bad"}) == FilterResult(quarantined=(bad,))
    assert evaluate(filters, {"user_id": "good"}) == FilterResult(allowed=(bad,))


@pytest.mark.parametrize("isolation", ["none", "process"])
@pytest.mark.parametrize("source", ["return true", "return false", "return #history > 1", "return event.a.b"])
def test_a_rule_just_under_its_limit_on_every_event_is_set_aside(source: str, isolation: Isolation) -> None:
    slow, fast = rule("slow", f"for i = 1, 60000 do end {source}"), rule("fast")
    filters = filter_set((slow, fast), Quarantine(time_share=0.001), lambda: 0, isolation)
    with closing(filters):
        usual = evaluate(filters, {"user_id": "u0"})
        assert (usual.tripped, usual.quarantined) == ((), ())
        results = [evaluate(filters, {"user_id": f"u{number}"}) for number in range(1, 400)]
    at = next(number for number, result in enumerate(results) if result.tripped)
    assert results[at].allowed == usual.allowed  # what the event came to counts
    set_aside = "over budget: more than 0.001 of a minute of its worker: it is set aside"
    assert results[at].errors == (usual.errors or ((slow, set_aside),))
    assert all((each.allowed, each.quarantined) == ((fast,), (slow,)) for each in results[at + 1 :])


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
