"""The oracle says what docs/user-state.md says, sentence by sentence."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, event
from tests.oracle import UNAVAILABLE, Oracle, OracleRule

PENDING, FAILED, UNKNOWN = ({"enrichment": name} for name in ("pending", "unavailable", "unknown"))


def oracle_with(*policies: str, known: Any = None, **settings: Any) -> Oracle:
    """An oracle of one user, ``u1``, with a rule that always fires for each policy, named after it."""
    rules = [OracleRule(policy, lambda *_: True, on_missing_profile=policy) for policy in policies]
    oracle = Oracle(rules, {"u1": known} if known else {}, answers_at_once=False, **settings)
    oracle.now_ms = NOW_MS
    return oracle


def api(version: int = 1, visit: dict[str, Any] | None = None, **times: int) -> dict[str, Any]:
    """What the user API knows; ``times`` are the rows of its history, by event id, after NOW_MS."""
    past = [{"event_id": name, "event_name": "api", "timestamp": NOW_MS + after} for name, after in times.items()]
    return {"profile": {"version": version}, "visit": visit, "history": past}


def visit(start: int, pages: int) -> dict[str, Any]:
    return {"visit_id": "v", "start_time": NOW_MS + start, "page_count": pages, "is_first_visit": True}


def tell(oracle: Oracle, event_id: str, at: int = 0, wait: int = 0, **fields: Any) -> None:
    """An event of ``u1`` with a timestamp ``at`` ms after NOW_MS, ``wait`` ms after the last one."""
    sent = event("u1", event_id=event_id, timestamp=NOW_MS + at, **fields)
    oracle.feed(b"u1", orjson.dumps(sent), oracle.now_ms + wait)
    oracle.pass_time(oracle.now_ms)


def profiles(oracle: Oracle) -> list[Any]:
    """Each action's profile: its version, or why there is none."""
    return [one.body["userProfile"].get("version") or one.body["userProfile"] for one in oracle.actions]


def rows(oracle: Oracle) -> list[str]:
    return [row["event_id"] for row in oracle.state("u1")["eventHistory"]]


def fired(oracle: Oracle) -> list[tuple[str, str]]:
    return [(one.event_id, one.rule) for one in oracle.actions]


# The order of things


def test_an_event_is_evaluated_against_what_was_known_before_it_then_added() -> None:
    oracle = oracle_with("run")
    tell(oracle, "a")
    tell(oracle, "b")
    assert [one.body["eventHistory"] for one in oracle.actions] == [[], oracle.users["u1"].history[:1]]


def test_history_is_ordered_by_timestamp_ties_by_arrival_and_loses_the_oldest_timestamp() -> None:
    oracle = oracle_with("run", history_size=3)
    for name, at in (("b", 5), ("late", 1), ("tie", 5)):
        tell(oracle, name, at)
    assert rows(oracle) == ["late", "b", "tie"]
    tell(oracle, "older than a full history", 0)
    assert rows(oracle) == ["late", "b", "tie"]
    assert oracle.handled == 4
    tell(oracle, "c", 9)
    assert rows(oracle) == ["b", "tie", "c"]


def test_a_duplicate_is_counted_not_evaluated_not_added_and_starts_the_ttl_anew() -> None:
    oracle = oracle_with("run", ttl_ms=100)
    tell(oracle, "a")
    tell(oracle, "a", wait=60)
    assert (oracle.duplicates, oracle.handled, len(oracle.actions), rows(oracle)) == ([("u1", "a")], 1, 1, ["a"])
    oracle.pass_time(NOW_MS + 159)
    assert oracle.state("u1")["found"]
    oracle.pass_time(NOW_MS + 160)
    assert not oracle.state("u1")["found"]


def test_an_event_that_left_the_history_is_no_duplicate_any_more() -> None:
    oracle = oracle_with("run", history_size=1)
    for name in ("a", "b", "a"):
        tell(oracle, name)
    assert (oracle.handled, oracle.duplicates) == (3, [])


@pytest.mark.parametrize("policy", ["wait", "run"])
def test_the_api_s_rows_are_taken_up_to_the_oldest_event_in_hand_and_without_those(policy: str) -> None:
    oracle = oracle_with(policy, known=api(a=-9, p=-5, tie=3, newer=4, b=2))
    tell(oracle, "b", 7)
    tell(oracle, "a", 3)
    oracle.answer("u1")
    assert rows(oracle) == ["p", "tie", "a", "b"]


def test_the_newest_of_the_api_s_rows_are_taken_whatever_their_order() -> None:
    oracle = oracle_with("wait", known=api(new=-1, old=-3, mid=-2), history_size=3)
    tell(oracle, "a")
    oracle.answer("u1")
    assert rows(oracle) == ["mid", "new", "a"]


def test_a_row_of_the_api_makes_no_duplicate_and_gives_way_before_its_event_is_evaluated() -> None:
    oracle = oracle_with("wait", known=api(late=-5, p=-9), history_size=3)
    tell(oracle, "a")
    oracle.answer("u1")
    assert rows(oracle) == ["p", "late", "a"]
    tell(oracle, "late", -7)
    assert oracle.duplicates == []
    assert [row["event_id"] for row in oracle.actions[-1].body["eventHistory"]] == ["p", "a"]
    assert [row["event_name"] for row in oracle.users["u1"].history] == ["api", "page_view", "page_view"]
    tell(oracle, "late")
    assert oracle.duplicates == [("u1", "late")]


def test_a_row_of_the_api_that_was_evicted_makes_no_difference() -> None:
    oracle = oracle_with("wait", known=api(p=-1), history_size=1)
    tell(oracle, "a")
    oracle.answer("u1")
    tell(oracle, "p", 5)
    tell(oracle, "p", 5)
    assert (rows(oracle), oracle.handled, len(oracle.duplicates)) == (["p"], 2, 1)


def test_what_starts_a_visit_and_what_counts_as_a_page() -> None:
    oracle = oracle_with("run")
    seen = []
    for name, at, fields in (
        ("a", 5, {"event_type": "pageview"}),
        ("b", 6, {"event_type": "pageview"}),
        ("older", 4, {"event_type": "pageview", "is_first_in_visit": True, "is_last_in_visit": True}),
        ("click", 7, {"event_type": "click", "is_last_in_visit": True}),
        ("c", 8, {"is_first_event": True}),
        ("d", 9, {"is_first_in_visit": True, "event_type": "pageview"}),
    ):
        tell(oracle, name, at, **fields)
        now = oracle.state("u1")["currentVisit"]
        seen.append((now["visit_id"], now["page_count"], now["is_first_visit"], now["start_time"] - NOW_MS))
    a2 = ("a", 2, False, 5)
    assert seen == [("a", 1, False, 5), a2, a2, a2, ("c", 0, True, 8), ("d", 1, False, 9)]


JOINED = {"visit_id": "v", "start_time": NOW_MS - 5, "page_count": 5, "is_first_visit": True}


@pytest.mark.parametrize(
    ("start", "events", "seen"),
    [
        (-5, [{}, {}], JOINED),
        (0, [{}, {}], JOINED | {"start_time": NOW_MS}),
        (1, [{}, {}], "0"),
        (-5, [{"is_first_in_visit": True}, {}], "0"),
        (-5, [{}, {"is_first_in_visit": True}], "1"),
        (-5, [{"is_last_in_visit": True}, {}], "1"),
        (-5, [{}, {"is_last_in_visit": True}], JOINED),
    ],
    ids=["older", "as old", "younger", "not assumed", "over by another", "over by its last", "ended"],
)
@pytest.mark.parametrize("policy", ["run", "wait"])
def test_a_visit_that_was_assumed_is_joined_to_the_api_s(policy: str, start: int, events: list[Any], seen: Any) -> None:
    oracle = oracle_with(policy, known=api(visit=visit(start, 3)), max_waiting_bytes=0)
    for number, fields in enumerate(events):
        tell(oracle, str(number), number, event_type="pageview", **fields)
    oracle.answer("u1")
    now = oracle.state("u1")["currentVisit"]
    assert now == seen or now["visit_id"] == seen
    tell(oracle, "next", 9)
    starts_anew = events[-1].get("is_last_in_visit", False)
    assert oracle.state("u1")["currentVisit"]["visit_id"] == ("next" if starts_anew else now["visit_id"])


# A miss


@pytest.mark.parametrize("policies", [("wait",), ("run", "skip", "wait")])
def test_where_a_rule_waits_events_wait_and_are_evaluated_in_order_against_all_rules(policies: Any) -> None:
    oracle = oracle_with(*policies, known=api())
    tell(oracle, "a")
    tell(oracle, "b", -5)
    assert (oracle.actions, oracle.asked, oracle.state("u1")["parked"]) == ([], {"u1"}, 2)
    oracle.answer("u1")
    assert fired(oracle) == [(name, policy) for name in "ab" for policy in policies]
    assert set(profiles(oracle)) == {1}
    assert oracle.asked == set()


def test_after_the_deadline_all_rules_run_without_a_profile_and_the_answer_is_still_folded_in() -> None:
    oracle = oracle_with("wait", "skip", "run", known=api(p=-1, a=-1, newer=1), deadline_ms=100)
    tell(oracle, "a")
    oracle.pass_time(NOW_MS + 99)
    assert oracle.actions == []
    oracle.pass_time(NOW_MS + 100)
    assert fired(oracle) == [("a", "wait"), ("a", "skip"), ("a", "run")]
    tell(oracle, "b")
    assert (profiles(oracle), oracle.waiting, oracle.asked) == ([FAILED] * 6, {}, {"u1"})
    oracle.answer("u1")
    assert rows(oracle) == ["p", "a", "b"]
    tell(oracle, "c")
    assert profiles(oracle)[6:] == [1, 1, 1]


def test_where_no_rule_waits_run_rules_run_at_once_and_skip_rules_from_the_answer_on() -> None:
    oracle = oracle_with("run", "skip", known=api(p=-1))
    tell(oracle, "a")
    assert (fired(oracle), profiles(oracle), oracle.asked) == ([("a", "run")], [PENDING], {"u1"})
    assert (oracle.skipped, oracle.state("u1")["enrichment"]) == (1, "pending")
    tell(oracle, "b")
    oracle.answer("u1")
    assert rows(oracle) == ["p", "a", "b"]
    tell(oracle, "c")
    assert fired(oracle)[1:] == [("b", "run"), ("c", "run"), ("c", "skip")]
    assert (profiles(oracle)[2:], oracle.skipped) == ([1, 1], 2)


def test_while_the_profile_is_unavailable_skip_rules_are_skipped() -> None:
    oracle = oracle_with("run", "skip")
    tell(oracle, "a")
    oracle.answer("u1", unavailable=True)
    tell(oracle, "b")
    assert (fired(oracle), profiles(oracle)) == ([("a", "run"), ("b", "run")], [PENDING, FAILED])
    assert oracle.skipped == 2


@pytest.mark.parametrize("policy", ["wait", "run", "skip"])
def test_an_unknown_user_is_remembered_and_evaluated_against_all_rules(policy: str) -> None:
    oracle = oracle_with(policy)
    tell(oracle, "a")
    oracle.answer("u1")
    tell(oracle, "b", wait=100_000)
    assert (oracle.state("u1")["userProfile"], oracle.asked) == (UNKNOWN, set())
    assert profiles(oracle)[-1] == UNKNOWN


def test_a_user_waits_with_so_many_bytes_and_beyond_it_all_of_them_are_evaluated() -> None:
    sent = event("u1", event_id="a")
    size = len(orjson.dumps(sent)) + 300
    oracle = oracle_with("wait", known=api(), max_waiting_bytes=2 * size)
    tell(oracle, "a")
    tell(oracle, "b")
    assert oracle.actions == []
    tell(oracle, "c")
    assert [one.event_id for one in oracle.actions] == ["a", "b", "c"]
    assert (profiles(oracle), oracle.asked) == ([FAILED] * 3, {"u1"})
    oracle.answer("u1")
    tell(oracle, "d")
    assert profiles(oracle)[3:] == [1]


def test_time_in_which_nobody_asked_does_not_count_towards_the_deadline() -> None:
    oracle = oracle_with("wait", deadline_ms=100)
    tell(oracle, "a")
    oracle.restored(NOW_MS + 5000)
    oracle.pass_time(NOW_MS + 5099)
    assert (oracle.actions, oracle.asked) == ([], {"u1"})
    oracle.pass_time(NOW_MS + 5100)
    assert profiles(oracle) == [FAILED]


# Refreshing


def test_a_profile_never_gets_old_by_default() -> None:
    oracle = oracle_with("wait", known=api())
    tell(oracle, "a")
    oracle.answer("u1")
    tell(oracle, "b", wait=599_999)
    assert oracle.asked == set()


@pytest.mark.parametrize("policy", ["wait", "run", "skip"])
@pytest.mark.parametrize("known", [api(visit=visit(-9, 1), p=-9), None], ids=["known", "unknown"])
def test_an_old_profile_is_in_use_until_the_new_one_replaces_it_and_nothing_else(known: Any, policy: str) -> None:
    oracle = oracle_with(policy, known=known, profile_max_age_ms=1000)
    tell(oracle, "a")
    oracle.answer("u1")
    tell(oracle, "b", wait=999)
    assert oracle.asked == set()
    tell(oracle, "c", wait=1)
    tell(oracle, "d")
    assert (oracle.asked, oracle.waiting) == ({"u1"}, {})
    assert profiles(oracle)[-3:] == [1 if known else UNKNOWN] * 3
    before = oracle.state("u1")
    oracle.api = {"u1": api(2, visit(-99, 9), q=-99, b=-99)}
    oracle.answer("u1")
    assert oracle.state("u1") == before | {"enrichment": "fetched", "userProfile": {"version": 2}}
    tell(oracle, "e", wait=999)
    assert oracle.asked == set()
    tell(oracle, "f", wait=1)
    assert oracle.asked == {"u1"}
    oracle.api = {}
    oracle.answer("u1")
    assert oracle.state("u1")["userProfile"] == UNKNOWN


def test_a_refresh_that_fails_keeps_the_old_profile_and_is_tried_again_after_the_retry_time() -> None:
    oracle = oracle_with("wait", known=api(), profile_max_age_ms=100, enrichment_retry_ms=30)
    tell(oracle, "a")
    oracle.answer("u1")
    tell(oracle, "b", wait=100)
    oracle.answer("u1", unavailable=True)
    tell(oracle, "c", wait=29)
    assert (oracle.state("u1")["enrichment"], oracle.asked) == ("fetched", set())
    tell(oracle, "d", wait=1)
    assert (profiles(oracle), oracle.asked) == ([1, 1, 1, 1], {"u1"})


@pytest.mark.parametrize("policies", [("wait",), ("run", "skip")])
def test_an_unavailable_user_is_asked_for_again_evaluated_at_once_and_folded_in_whole(policies: Any) -> None:
    oracle = oracle_with(*policies, known=UNAVAILABLE, enrichment_retry_ms=30)
    tell(oracle, "a", event_type="pageview")
    oracle.answer("u1")
    tell(oracle, "b", wait=29)
    assert oracle.asked == set()
    tell(oracle, "c", wait=1)
    assert (oracle.asked, oracle.waiting, oracle.handled) == ({"u1"}, {}, 3)
    oracle.api = {"u1": api(2, visit(-9, 3), p=-9)}
    oracle.answer("u1")
    shown = oracle.state("u1")
    assert (shown["userProfile"], rows(oracle)) == ({"version": 2}, ["p", "a", "b", "c"])
    assert shown["currentVisit"] == visit(-9, 4)


def test_the_retry_time_counts_from_the_deadline_too_once_the_question_is_lost() -> None:
    oracle = oracle_with("wait", deadline_ms=10, enrichment_retry_ms=30)
    tell(oracle, "a")
    oracle.pass_time(NOW_MS + 10)
    oracle.restored()
    assert oracle.asked == set()
    tell(oracle, "b", wait=29)
    assert oracle.asked == set()
    tell(oracle, "c", wait=1)
    assert oracle.asked == {"u1"}


def test_a_duplicate_asks_like_any_event() -> None:
    oracle = oracle_with("wait", known=api(), profile_max_age_ms=100)
    tell(oracle, "a")
    oracle.answer("u1")
    tell(oracle, "a", wait=100)
    assert (oracle.asked, len(oracle.duplicates)) == ({"u1"}, 1)


@pytest.mark.parametrize("policy", ["wait", "run"])
def test_a_restore_forgets_the_questions_of_users_with_nothing_waiting_and_their_next_event_asks(policy: str) -> None:
    oracle = oracle_with(policy, known=api(), profile_max_age_ms=100)
    tell(oracle, "a")
    oracle.restored()
    assert oracle.asked == ({"u1"} if policy == "wait" else set())
    tell(oracle, "b")
    oracle.answer("u1")
    tell(oracle, "c", wait=100)
    oracle.restored()
    assert oracle.asked == set()
    tell(oracle, "d")
    assert oracle.asked == {"u1"}


# How long


def test_an_answer_does_not_count_as_access() -> None:
    oracle = oracle_with("run", known=api(), ttl_ms=100)
    tell(oracle, "a")
    oracle.pass_time(NOW_MS + 99)
    oracle.answer("u1")
    oracle.pass_time(NOW_MS + 100)
    assert not oracle.state("u1")["found"]


@pytest.mark.parametrize("end", ["ttl", "ttl, not swept yet", "forget"])
def test_a_user_who_is_gone_leaves_nothing_not_even_a_question(end: str) -> None:
    oracle = oracle_with("run", known=api(), ttl_ms=100)
    tell(oracle, "a")
    if end == "forget":
        oracle.forget("u1")
    elif end == "ttl":
        oracle.pass_time(NOW_MS + 100)
    else:
        oracle.now_ms = NOW_MS + 100
    oracle.answer("u1")
    assert (oracle.state("u1")["found"], oracle.asked) == (False, set())
    tell(oracle, "a")
    assert (oracle.handled, profiles(oracle), rows(oracle)) == (2, [PENDING, PENDING], ["a"])


def test_an_event_before_the_sweep_meets_a_new_user() -> None:
    oracle = oracle_with("wait", known=api(p=-1), ttl_ms=100)
    tell(oracle, "a")
    oracle.answer("u1")
    tell(oracle, "a", wait=100)
    assert (oracle.state("u1")["found"], oracle.state("u1")["parked"], oracle.asked) == (False, 1, {"u1"})


def test_forgetting_forgets_the_events_that_wait() -> None:
    oracle = oracle_with("wait", known=api())
    tell(oracle, "a")
    oracle.forget("u1")
    oracle.answer("u1")
    oracle.pass_time(NOW_MS + 10_000)
    assert (oracle.actions, oracle.state("u1")["parked"]) == ([], 0)


# By default the user API answers at once


@pytest.mark.parametrize(("policy", "first"), [("wait", 1), ("run", PENDING)])
def test_an_api_that_answers_at_once_does_so_after_the_event_that_asked(policy: str, first: Any) -> None:
    oracle = oracle_with(policy, known=api(), profile_max_age_ms=100)
    oracle.answers_at_once = True
    tell(oracle, "a")
    tell(oracle, "b")
    oracle.api = {"u1": api(2)}
    tell(oracle, "c", wait=100)
    tell(oracle, "d")
    assert profiles(oracle) == [first, 1, 1, 2]
    assert oracle.asked == set()
