"""The oracle says what docs/user-state.md and docs/rules.md say, sentence by sentence."""

from __future__ import annotations

import base64
import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from tests.builders import NOW_MS, event
from tests.oracle import (
    DAY_MS,
    UNAVAILABLE,
    Oracle,
    OracleRule,
    OracleSequence,
    RuleFails,
    dead_letter_differences,
    period_of,
    state_differences,
)

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


def send(oracle: Oracle, event_id: str, at: int = 0, wait: int = 0, received: int | None = None, **fields: Any) -> None:
    """An event of ``u1`` with a timestamp ``at`` ms after NOW_MS, ``wait`` ms after the last one.

    It reached Kafka ``received`` ms after NOW_MS, by default at the time of its timestamp.
    """
    sent = event("u1", event_id=event_id, timestamp=NOW_MS + at, **fields)
    oracle.feed(b"u1", orjson.dumps(sent), oracle.now_ms + wait, -1 if received is None else NOW_MS + received)
    oracle.pass_time(oracle.now_ms)


def profiles(oracle: Oracle) -> list[Any]:
    """Each action's profile: its version, or why there is none."""
    return [action.body["userProfile"].get("version") or action.body["userProfile"] for action in oracle.actions]


def rows(oracle: Oracle) -> list[str]:
    return [row["event_id"] for row in oracle.state("u1")["eventHistory"]]


def fired(oracle: Oracle) -> list[tuple[str, str]]:
    return [(action.event_id, action.rule) for action in oracle.actions]


# The order of things


def test_an_event_is_evaluated_against_what_was_known_before_it_then_added() -> None:
    oracle = oracle_with("run")
    send(oracle, "a")
    send(oracle, "b")
    assert [action.body["eventHistory"] for action in oracle.actions] == [[], oracle.users["u1"].history[:1]]


def test_history_is_ordered_by_timestamp_ties_by_arrival_and_loses_the_oldest_timestamp() -> None:
    oracle = oracle_with("run", history_size=3)
    for name, at in (("b", 5), ("late", 1), ("tie", 5)):
        send(oracle, name, at)
    assert rows(oracle) == ["late", "b", "tie"]
    send(oracle, "older than a full history", 0)
    assert rows(oracle) == ["late", "b", "tie"]
    assert oracle.handled == 4
    send(oracle, "c", 9)
    assert rows(oracle) == ["b", "tie", "c"]


def test_a_duplicate_is_counted_not_evaluated_not_added_and_starts_the_ttl_anew() -> None:
    oracle = oracle_with("run", ttl_ms=100)
    send(oracle, "a")
    send(oracle, "a", wait=60)
    assert (oracle.duplicates, oracle.handled, len(oracle.actions), rows(oracle)) == ([("u1", "a")], 1, 1, ["a"])
    oracle.pass_time(NOW_MS + 159)
    assert oracle.state("u1")["found"]
    oracle.pass_time(NOW_MS + 160)
    assert not oracle.state("u1")["found"]


def test_an_event_that_left_the_history_is_no_duplicate_any_more() -> None:
    oracle = oracle_with("run", history_size=1)
    for name in ("a", "b", "a"):
        send(oracle, name)
    assert (oracle.handled, oracle.duplicates) == (3, [])


@pytest.mark.parametrize("policy", ["wait", "run"])
@pytest.mark.parametrize("at", [3, -72_000_000])
def test_the_api_s_rows_are_taken_up_to_the_first_kafka_time_and_without_events_in_hand(policy: str, at: int) -> None:
    oracle = oracle_with(policy, known=api(a=-9, p=-5, tie=3, newer=4, b=2))
    send(oracle, "b", at, received=3)
    send(oracle, "a", 3, received=9)
    oracle.answer("u1")
    assert rows(oracle) == (["p", "tie", "b", "a"] if at == 3 else ["b", "p", "tie", "a"])


def test_the_newest_of_the_api_s_rows_are_taken_whatever_their_order() -> None:
    oracle = oracle_with("wait", known=api(new=-1, old=-3, mid=-2), history_size=3)
    send(oracle, "a")
    oracle.answer("u1")
    assert rows(oracle) == ["mid", "new", "a"]


def test_a_row_of_the_api_makes_no_duplicate_and_gives_way_before_its_event_is_evaluated() -> None:
    oracle = oracle_with("wait", known=api(late=-5, p=-9), history_size=3)
    send(oracle, "a")
    oracle.answer("u1")
    assert rows(oracle) == ["p", "late", "a"]
    send(oracle, "late", -7)
    assert oracle.duplicates == []
    assert [row["event_id"] for row in oracle.actions[-1].body["eventHistory"]] == ["p", "a"]
    assert [row["event_name"] for row in oracle.users["u1"].history] == ["api", "page_view", "page_view"]
    send(oracle, "late")
    assert oracle.duplicates == [("u1", "late")]


def test_a_row_of_the_api_that_was_evicted_makes_no_difference() -> None:
    oracle = oracle_with("wait", known=api(p=-1), history_size=1)
    send(oracle, "a")
    oracle.answer("u1")
    send(oracle, "p", 5)
    send(oracle, "p", 5)
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
        send(oracle, name, at, **fields)
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
        send(oracle, str(number), number, event_type="pageview", **fields)
    oracle.answer("u1")
    now = oracle.state("u1")["currentVisit"]
    assert now == seen or now["visit_id"] == seen
    send(oracle, "next", 9)
    starts_anew = events[-1].get("is_last_in_visit", False)
    assert oracle.state("u1")["currentVisit"]["visit_id"] == ("next" if starts_anew else now["visit_id"])


# A miss


@pytest.mark.parametrize("policies", [("wait",), ("run", "skip", "wait")])
def test_where_a_rule_waits_events_wait_and_are_evaluated_in_order_against_all_rules(policies: Any) -> None:
    oracle = oracle_with(*policies, known=api())
    send(oracle, "a")
    send(oracle, "b", -5)
    assert (oracle.actions, oracle.asked, oracle.state("u1")["parked"]) == ([], {"u1"}, 2)
    oracle.answer("u1")
    assert fired(oracle) == [(name, policy) for name in "ab" for policy in policies]
    assert set(profiles(oracle)) == {1}
    assert oracle.asked == set()


def test_after_the_deadline_all_rules_run_without_a_profile_and_the_answer_is_still_folded_in() -> None:
    oracle = oracle_with("wait", "skip", "run", known=api(p=-1, a=-1, newer=1), deadline_ms=100)
    send(oracle, "a")
    oracle.pass_time(NOW_MS + 99)
    assert oracle.actions == []
    oracle.pass_time(NOW_MS + 100)
    assert fired(oracle) == [("a", "wait"), ("a", "skip"), ("a", "run")]
    send(oracle, "b")
    assert (profiles(oracle), oracle.waiting, oracle.asked) == ([FAILED] * 6, {}, {"u1"})
    oracle.answer("u1")
    assert rows(oracle) == ["p", "a", "b"]
    send(oracle, "c")
    assert profiles(oracle)[6:] == [1, 1, 1]


def test_where_no_rule_waits_run_rules_run_at_once_and_skip_rules_from_the_answer_on() -> None:
    oracle = oracle_with("run", "skip", known=api(p=-1))
    send(oracle, "a")
    assert (fired(oracle), profiles(oracle), oracle.asked) == ([("a", "run")], [PENDING], {"u1"})
    assert (oracle.skipped, oracle.state("u1")["enrichment"]) == (1, "pending")
    send(oracle, "b")
    oracle.answer("u1")
    assert rows(oracle) == ["p", "a", "b"]
    send(oracle, "c")
    assert fired(oracle)[1:] == [("b", "run"), ("c", "run"), ("c", "skip")]
    assert (profiles(oracle)[2:], oracle.skipped) == ([1, 1], 2)


def test_while_the_profile_is_unavailable_skip_rules_are_skipped() -> None:
    oracle = oracle_with("run", "skip")
    send(oracle, "a")
    oracle.answer("u1", unavailable=True)
    send(oracle, "b")
    assert (fired(oracle), profiles(oracle)) == ([("a", "run"), ("b", "run")], [PENDING, FAILED])
    assert oracle.skipped == 2


@pytest.mark.parametrize("policy", ["wait", "run", "skip"])
def test_an_unknown_user_is_remembered_and_evaluated_against_all_rules(policy: str) -> None:
    oracle = oracle_with(policy)
    send(oracle, "a")
    oracle.answer("u1")
    send(oracle, "b", wait=100_000)
    assert (oracle.state("u1")["userProfile"], oracle.asked) == (UNKNOWN, set())
    assert profiles(oracle)[-1] == UNKNOWN


def test_a_user_waits_with_so_many_bytes_and_beyond_it_all_of_them_are_evaluated() -> None:
    sent = event("u1", event_id="a")
    size = len(orjson.dumps(sent)) + 300
    oracle = oracle_with("wait", known=api(), max_waiting_bytes=2 * size)
    send(oracle, "a")
    send(oracle, "b")
    assert oracle.actions == []
    send(oracle, "c")
    assert [action.event_id for action in oracle.actions] == ["a", "b", "c"]
    assert (profiles(oracle), oracle.asked) == ([FAILED] * 3, {"u1"})
    oracle.answer("u1")
    send(oracle, "d")
    assert profiles(oracle)[3:] == [1]


def test_time_without_a_fetch_does_not_count_towards_the_deadline() -> None:
    oracle = oracle_with("wait", deadline_ms=100)
    send(oracle, "a")
    oracle.restored(NOW_MS + 5000)
    oracle.pass_time(NOW_MS + 5099)
    assert (oracle.actions, oracle.asked) == ([], {"u1"})
    oracle.pass_time(NOW_MS + 5100)
    assert profiles(oracle) == [FAILED]


# Refreshing


def test_a_profile_never_gets_old_by_default() -> None:
    oracle = oracle_with("wait", known=api())
    send(oracle, "a")
    oracle.answer("u1")
    send(oracle, "b", wait=599_999)
    assert oracle.asked == set()


@pytest.mark.parametrize("policy", ["wait", "run", "skip"])
@pytest.mark.parametrize("known", [api(visit=visit(-9, 1), p=-9), None], ids=["known", "unknown"])
def test_an_old_profile_is_in_use_until_the_new_one_replaces_it_and_nothing_else(known: Any, policy: str) -> None:
    oracle = oracle_with(policy, known=known, profile_max_age_ms=1000)
    send(oracle, "a")
    oracle.answer("u1")
    send(oracle, "b", wait=999)
    assert oracle.asked == set()
    send(oracle, "c", wait=1)
    send(oracle, "d")
    assert (oracle.asked, oracle.waiting) == ({"u1"}, {})
    assert profiles(oracle)[-3:] == [1 if known else UNKNOWN] * 3
    before = oracle.state("u1")
    oracle.api = {"u1": api(2, visit(-99, 9), q=-99, b=-99)}
    oracle.answer("u1")
    assert oracle.state("u1") == before | {"enrichment": "fetched", "userProfile": {"version": 2}}
    send(oracle, "e", wait=999)
    assert oracle.asked == set()
    send(oracle, "f", wait=1)
    assert oracle.asked == {"u1"}
    oracle.api = {}
    oracle.answer("u1")
    assert oracle.state("u1")["userProfile"] == UNKNOWN


def test_a_refresh_that_fails_keeps_the_old_profile_and_is_tried_again_after_the_retry_time() -> None:
    oracle = oracle_with("wait", known=api(), profile_max_age_ms=100, enrichment_retry_ms=30)
    send(oracle, "a")
    oracle.answer("u1")
    send(oracle, "b", wait=100)
    oracle.answer("u1", unavailable=True)
    send(oracle, "c", wait=29)
    assert (oracle.state("u1")["enrichment"], oracle.asked) == ("fetched", set())
    send(oracle, "d", wait=1)
    assert (profiles(oracle), oracle.asked) == ([1, 1, 1, 1], {"u1"})


@pytest.mark.parametrize("policies", [("wait",), ("run", "skip")])
def test_an_unavailable_user_is_asked_for_again_evaluated_at_once_and_folded_in_whole(policies: Any) -> None:
    oracle = oracle_with(*policies, known=UNAVAILABLE, enrichment_retry_ms=30)
    send(oracle, "a", event_type="pageview")
    oracle.answer("u1")
    send(oracle, "b", wait=29)
    assert oracle.asked == set()
    send(oracle, "c", wait=1)
    assert (oracle.asked, oracle.waiting, oracle.handled) == ({"u1"}, {}, 3)
    oracle.api = {"u1": api(2, visit(-9, 3), p=-9)}
    oracle.answer("u1")
    shown = oracle.state("u1")
    assert (shown["userProfile"], rows(oracle)) == ({"version": 2}, ["p", "a", "b", "c"])
    assert shown["currentVisit"] == visit(-9, 4)


def test_the_retry_time_counts_from_the_deadline_too_once_the_question_is_lost() -> None:
    oracle = oracle_with("wait", deadline_ms=10, enrichment_retry_ms=30)
    send(oracle, "a")
    oracle.pass_time(NOW_MS + 10)
    oracle.restored()
    assert oracle.asked == set()
    send(oracle, "b", wait=29)
    assert oracle.asked == set()
    send(oracle, "c", wait=1)
    assert oracle.asked == {"u1"}


def test_a_duplicate_asks_like_any_event() -> None:
    oracle = oracle_with("wait", known=api(), profile_max_age_ms=100)
    send(oracle, "a")
    oracle.answer("u1")
    send(oracle, "a", wait=100)
    assert (oracle.asked, len(oracle.duplicates)) == ({"u1"}, 1)


@pytest.mark.parametrize("policy", ["wait", "run"])
def test_a_restore_forgets_the_questions_of_users_with_nothing_waiting_and_their_next_event_asks(policy: str) -> None:
    oracle = oracle_with(policy, known=api(), profile_max_age_ms=100)
    send(oracle, "a")
    oracle.restored()
    assert oracle.asked == ({"u1"} if policy == "wait" else set())
    send(oracle, "b")
    oracle.answer("u1")
    send(oracle, "c", wait=100)
    oracle.restored()
    assert oracle.asked == set()
    send(oracle, "d")
    assert oracle.asked == {"u1"}


# How long


def test_an_answer_does_not_count_as_access() -> None:
    oracle = oracle_with("run", known=api(), ttl_ms=100)
    send(oracle, "a")
    oracle.pass_time(NOW_MS + 99)
    oracle.answer("u1")
    oracle.pass_time(NOW_MS + 100)
    assert not oracle.state("u1")["found"]


@pytest.mark.parametrize("end", ["ttl", "ttl, not swept yet", "forget"])
def test_a_removed_user_leaves_nothing_not_even_a_fetch(end: str) -> None:
    oracle = oracle_with("run", known=api(), ttl_ms=100)
    send(oracle, "a")
    if end == "forget":
        oracle.forget("u1")
    elif end == "ttl":
        oracle.pass_time(NOW_MS + 100)
    else:
        oracle.now_ms = NOW_MS + 100
    oracle.answer("u1")
    assert (oracle.state("u1")["found"], oracle.asked) == (False, set())
    send(oracle, "a")
    assert (oracle.handled, profiles(oracle), rows(oracle)) == (2, [PENDING, PENDING], ["a"])


def test_an_event_before_the_sweep_meets_a_new_user() -> None:
    oracle = oracle_with("wait", known=api(p=-1), ttl_ms=100)
    send(oracle, "a")
    oracle.answer("u1")
    send(oracle, "a", wait=100)
    assert (oracle.state("u1")["found"], oracle.state("u1")["parked"], oracle.asked) == (False, 1, {"u1"})


def test_forgetting_forgets_the_events_that_wait() -> None:
    oracle = oracle_with("wait", known=api())
    send(oracle, "a")
    oracle.forget("u1")
    oracle.answer("u1")
    oracle.pass_time(NOW_MS + 10_000)
    assert (oracle.actions, oracle.state("u1")["parked"]) == ([], 0)


# By default the user API answers at once


@pytest.mark.parametrize(("policy", "first"), [("wait", 1), ("run", PENDING)])
def test_an_api_that_answers_at_once_does_so_after_the_event_that_asked(policy: str, first: Any) -> None:
    oracle = oracle_with(policy, known=api(), profile_max_age_ms=100)
    oracle.answers_at_once = True
    send(oracle, "a")
    send(oracle, "b")
    oracle.api = {"u1": api(2)}
    send(oracle, "c", wait=100)
    send(oracle, "d")
    assert profiles(oracle) == [first, 1, 1, 2]
    assert oracle.asked == set()


# Rules that remember (docs/rules.md, "How often, when, and in what order")


class RuleFeed:
    """An oracle with one rule, ``r``, fed by the minute: ``begin`` events are allowed, ``follow`` events follow.

    Processing time stands at ``now``; the stream's time passes with ``stream``.
    """

    def __init__(self, known: Any = None, now: str = "2024-01-01T00:00:00Z", **rule: Any) -> None:
        if isinstance(rule.get("sequence"), dict):
            rule["sequence"] = OracleSequence(
                follows=lambda event, *_: "follow" in event["event_name"], **rule["sequence"]
            )
        self.rule = OracleRule("r", lambda event, *_: "begin" in event["event_name"], **rule)
        self.oracle = Oracle([self.rule], {"u1": known} if known else {}, ttl_ms=DAY_MS, answers_at_once=False)
        self.oracle.now_ms = ms(now)
        self.numbers = itertools.count()

    def send(self, minute: float, name: str = "begin", record_minute: float | None = None, **fields: Any) -> RuleFeed:
        """An event of a minute, whose record may be of another."""
        number = next(self.numbers)
        at_ms = NOW_MS + int(minute * MINUTE_MS)
        record_ms = -1 if record_minute is None else NOW_MS + int(record_minute * MINUTE_MS)
        sent = event("u1", event_id=f"{name}{number}", event_name=name, timestamp=at_ms, **fields)
        self.oracle.feed(b"u1", orjson.dumps(sent), record_ms=record_ms)
        self.oracle.answer("u1")
        return self

    def at(self, time: str) -> RuleFeed:
        """An event at this time."""
        return self.send((ms(time) - NOW_MS) / MINUTE_MS)

    def stream(self, minute: float) -> RuleFeed:
        """The stream has passed this and the allowed lateness."""
        self.oracle.pass_stream(NOW_MS + int(minute * MINUTE_MS) + 10_000)
        return self

    def clock(self, time: str) -> RuleFeed:
        self.oracle.pass_time(ms(time))
        return self

    @property
    def fired(self) -> list[str]:
        return [action.event_id for action in self.oracle.actions]

    @property
    def held(self) -> list[tuple[str, str]]:
        shown = self.oracle.state("u1")["ruleState"]["held"]
        return [
            (action["event_id"], datetime.fromtimestamp(action["until"] / 1000, UTC).isoformat()[:16])
            for action in shown
        ]

    @property
    def open(self) -> list[tuple[str, float, float]]:
        shown = self.oracle.state("u1")["ruleState"]["sequences"]
        minutes = [[(action[name] - NOW_MS) / MINUTE_MS for name in ("begun_at", "ends_at")] for action in shown]
        return [(action["event_id"], *times) for action, times in zip(shown, minutes, strict=True)]


MINUTE_MS = 60_000
TEN = 10 * MINUTE_MS


def ms(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def test_a_cooldown_ends_exactly_its_time_after_the_last_firing_and_older_events_do_not_fire() -> None:
    feed = RuleFeed(cooldown_ms=TEN)
    for minute in (20, 20, 29.9, 5, 30, 39, 40):
        feed.send(minute)
    assert feed.fired == ["begin0", "begin4", "begin6"]
    assert feed.oracle.counts == {"rules_cooled_down": 4}


def test_each_value_of_a_key_has_a_cooldown_of_its_own() -> None:
    feed = RuleFeed(cooldown_ms=TEN, cooldown_key=lambda event, *_: str(event["parameters"]["sku"]))
    for minute, sku in ((0, "a"), (1, "b"), (2, "a"), (10, "a"), (10.5, "b")):
        feed.send(minute, parameters={"sku": sku})
    assert feed.fired == ["begin0", "begin1", "begin3"]


def test_a_rolling_cap_counts_what_fired_after_the_window_s_beginning_and_what_fired_later() -> None:
    feed = RuleFeed(cap_count=2, cap_window_ms=TEN)
    for minute in (0, 5, 9.9, 10, 14, 2, 15):
        feed.send(minute)
    # At 10 the firing at 0 is exactly a window old. The late one at 2 is stopped by those at 5 and 10.
    assert feed.fired == ["begin0", "begin1", "begin3", "begin6"]
    assert feed.oracle.counts == {"rules_capped": 3}


@pytest.mark.parametrize(
    ("per", "fires"),
    [
        ("day", [True, False, True, True, True, False, True, False]),
        ("week", [True, False, False, False, True, False, False, False]),
        ("month", [True, False, True, False, False, False, False, False]),
    ],
)
def test_a_calendar_cap_counts_since_the_day_week_or_month_began_where_the_user_is(per: str, fires: list[bool]) -> None:
    feed = RuleFeed({"profile": {"timezone": "Europe/Berlin"}, "visit": None, "history": []}, cap_count=1, cap_per=per)
    feed.oracle.now_ms = ms("2024-03-09T00:00:00Z")
    times = [
        "2024-02-28T23:00:00Z",  # Thursday the 29th, 00:00
        "2024-02-29T22:59:59Z",  # its last second
        "2024-02-29T23:00:00Z",  # Friday the 1st of March
        "2024-03-02T12:00:00Z",
        "2024-03-03T23:00:00Z",  # Monday
        "2024-03-03T22:00:00Z",  # late, of Sunday: what fired on Monday counts
        "2024-03-05T12:00:00Z",
        "2024-03-05T13:00:00Z",
    ]
    for time in times:
        feed.at(time)
    assert feed.fired == [f"begin{number}" for number, firing in enumerate(fires) if firing]


@pytest.mark.parametrize(
    ("day", "hours"), [("2024-03-31", 23), ("2024-10-27", 25), ("2024-06-01", 24)], ids=["spring", "autumn", "summer"]
)
def test_a_day_is_as_long_as_the_clocks_say(day: str, hours: int) -> None:
    begins = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp() * 1000
    periods = [
        period_of(round(begins) + minutes * MINUTE_MS, "day", "Europe/Berlin") for minutes in range(-60, 27 * 60)
    ]
    assert periods.count(datetime.fromisoformat(day).date()) == hours * 60


def test_a_firing_stopped_by_the_cooldown_does_not_count_for_the_cap_nor_the_other_way_round() -> None:
    feed = RuleFeed(cooldown_ms=TEN, cap_count=2, cap_window_ms=3 * TEN)
    for minute in (0, 1, 10, 20, 30):
        feed.send(minute)
    assert feed.fired == ["begin0", "begin2", "begin4"]
    assert feed.oracle.counts == {"rules_cooled_down": 1, "rules_capped": 1}


@pytest.mark.parametrize(
    "profile",
    [{}, {"timezone": "Nowhere/Nothing"}, {"timezone": 5}, {"timezone": ""}, {"timezone": "../UTC"}],
)
def test_users_without_a_zone_that_exists_have_the_default(profile: dict[str, Any]) -> None:
    known = {"profile": profile, "visit": None, "history": []}
    feed = RuleFeed(known, now="2024-01-01T06:30:00Z", quiet=("22:00", "08:00"), zone_default="Asia/Tokyo").send(0)
    assert (feed.fired, feed.held) == (["begin0"], [])
    feed = RuleFeed(known, now="2024-01-01T06:30:00Z", quiet=("22:00", "08:00")).send(0)
    assert (feed.fired, feed.held) == ([], [("begin0", "2024-01-01T08:00")])


def test_the_zone_s_field_may_be_another_or_none() -> None:
    known = {"profile": {"zone": "Asia/Tokyo", "timezone": "UTC"}, "visit": None, "history": []}
    hours = {"now": "2024-01-01T06:30:00Z", "quiet": ("22:00", "08:00")}
    assert RuleFeed(known, zone_field="zone", **hours).send(0).fired == ["begin0"]
    assert RuleFeed(known, zone_field=None, **hours).send(0).held == [("begin0", "2024-01-01T08:00")]


SPRING = [  # Europe/Berlin, 2024-03-31: after 01:59 CET (00:59Z) comes 03:00 CEST (01:00Z)
    (("22:00", "08:00"), "2024-03-30T21:00", "2024-03-31T06:00"),
    (("22:00", "08:00"), "2024-03-30T20:59", None),
    (("22:00", "08:00"), "2024-03-31T05:59", "2024-03-31T06:00"),
    (("22:00", "08:00"), "2024-03-31T06:00", None),
    (("22:00", "02:30"), "2024-03-31T00:30", "2024-03-31T01:30"),  # there is no 02:30: an hour later, 03:30
    (("22:00", "02:30"), "2024-03-31T01:29", "2024-03-31T01:30"),
    (("22:00", "02:30"), "2024-03-31T01:30", None),
    (("22:00", "02:00"), "2024-03-31T00:59", "2024-03-31T01:00"),
    (("22:00", "03:00"), "2024-03-31T00:59", "2024-03-31T01:00"),
    (("02:30", "06:00"), "2024-03-31T00:59", None),
    (("02:30", "06:00"), "2024-03-31T01:00", "2024-03-31T04:00"),
]
AUTUMN = [  # Europe/Berlin, 2024-10-27: after 02:59 CEST (00:59Z) comes 02:00 CET (01:00Z)
    (("22:00", "08:00"), "2024-10-26T20:00", "2024-10-27T07:00"),
    (("22:00", "08:00"), "2024-10-27T06:59", "2024-10-27T07:00"),
    (("22:00", "02:30"), "2024-10-27T00:29", "2024-10-27T00:30"),  # the first 02:30
    (("22:00", "02:30"), "2024-10-27T00:30", None),
    (("22:00", "02:30"), "2024-10-27T01:10", "2024-10-27T01:30"),  # 02:10 again
    (("22:00", "03:00"), "2024-10-27T01:59", "2024-10-27T02:00"),
    (("02:30", "06:00"), "2024-10-27T00:30", "2024-10-27T05:00"),
    (("02:30", "06:00"), "2024-10-27T01:10", None),
    (("02:30", "06:00"), "2024-10-27T01:30", "2024-10-27T05:00"),
    (("12:00", "13:30"), "2024-10-27T11:00", "2024-10-27T12:30"),
]


@pytest.mark.parametrize(("quiet", "now", "until"), SPRING + AUTUMN)
def test_quiet_hours_are_those_of_the_clock_on_the_wall(quiet: tuple[str, str], now: str, until: str | None) -> None:
    known = {"profile": {"timezone": "Europe/Berlin"}, "visit": None, "history": []}
    feed = RuleFeed(known, now=f"{now}:00Z", quiet=quiet).send(0)
    assert feed.held == ([] if until is None else [("begin0", until)])
    assert feed.fired == (["begin0"] if until is None else [])


def test_held_actions_go_out_unchanged_in_the_order_decided_before_later_actions() -> None:
    feed = RuleFeed(now="2024-01-01T23:00:00Z", quiet=("22:00", "08:00"), actions=("one", "two"))
    feed.send(5).send(0)
    feed.oracle.pass_time(ms("2024-01-02T07:59:59Z"))
    assert feed.fired == []
    feed.oracle.now_ms = ms("2024-01-02T08:00:00Z")
    feed.send(9)
    assert feed.fired == ["begin0", "begin0", "begin1", "begin1", "begin2", "begin2"]
    assert [action.action for action in feed.oracle.actions[:2]] == ["one", "two"]
    assert [len(action.body["eventHistory"]) for action in feed.oracle.actions] == [0, 0, 1, 1, 2, 2]
    assert feed.held == []


def test_a_held_action_waits_for_the_next_end_of_quiet_hours_if_it_is_quiet_again() -> None:
    feed = RuleFeed(now="2024-01-01T23:00:00Z", quiet=("22:00", "08:00")).send(0)
    feed.clock("2024-01-02T22:00:00Z")
    assert (feed.fired, feed.held) == ([], [("begin0", "2024-01-03T08:00")])
    feed.clock("2024-01-03T21:00:00Z")
    assert (feed.fired, feed.held) == (["begin0"], [])


@pytest.mark.parametrize("fate", ["kept", "higher version", "gone"])
def test_a_held_action_is_dropped_if_its_rule_was_removed(fate: str) -> None:
    feed = RuleFeed(now="2024-01-01T23:00:00Z", quiet=("22:00", "08:00")).send(0)
    if fate != "kept":
        feed.oracle.rules = [replace(feed.rule, version=2)] if fate == "higher version" else []
    feed.clock("2024-01-02T08:00:00Z")
    assert [action.version for action in feed.oracle.actions] == ([] if fate == "gone" else [1])
    assert (feed.held, feed.oracle.counts["held_dropped"]) == ([], int(fate == "gone"))


def test_cooldown_and_cap_count_held_actions() -> None:
    feed = RuleFeed(
        now="2024-01-01T23:00:00Z", quiet=("22:00", "08:00"), cooldown_ms=TEN, cap_count=2, cap_window_ms=DAY_MS
    )
    for minute in (0, 5, 10, 20):
        feed.send(minute)
    assert [event for event, _ in feed.held] == ["begin0", "begin2"]
    assert feed.oracle.counts == {"rules_cooled_down": 1, "rules_capped": 1}


FOLLOWED = {"kind": "followed_by", "within_ms": TEN}
NOT_FOLLOWED = {"kind": "not_followed_by", "within_ms": TEN}


@pytest.mark.parametrize(
    ("minute", "is_followed"), [(-0.1, False), (0, True), (5, True), (10, True), (10.1, False)], ids=str
)
def test_a_sequence_is_followed_from_its_beginning_to_its_end(minute: float, is_followed: bool) -> None:
    feed = RuleFeed(sequence=FOLLOWED).send(0).send(minute, "follow").send(minute, "follow")
    assert feed.fired == (["follow1"] if is_followed else [])
    assert feed.open == ([] if is_followed else [("begin0", 0, 10)])
    feed = RuleFeed(sequence=NOT_FOLLOWED).send(0).send(minute, "follow").stream(10)
    assert feed.fired == ([] if is_followed else ["begin0"])


def test_a_sequence_that_was_not_followed_fires_once_when_the_stream_and_the_lateness_have_passed_its_end() -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED).send(0)
    feed.oracle.pass_stream(NOW_MS + TEN + 9_999)
    assert (feed.fired, feed.open) == ([], [("begin0", 0, 10)])
    feed.oracle.pass_stream(NOW_MS + TEN + 10_000)
    feed.oracle.pass_stream(NOW_MS + TEN + 10_000)
    assert (feed.fired, feed.open) == (["begin0"], [])


def test_a_sequence_of_followed_by_ends_silently() -> None:
    feed = RuleFeed(sequence=FOLLOWED).send(0).stream(10).send(10, "follow")
    assert (feed.fired, feed.open, feed.oracle.counts) == ([], [], {})


def test_the_event_time_of_a_firing_is_the_event_s_or_the_end_of_what_was_not_followed() -> None:
    for sequence, at in ((FOLLOWED, 7), (NOT_FOLLOWED, 10)):
        feed = RuleFeed(sequence=sequence, cooldown_ms=TEN, cap_count=1, cap_window_ms=TEN).send(0)
        feed.send(7, "follow" if sequence is FOLLOWED else "other").stream(10)
        shown = feed.oracle.state("u1")["ruleState"]
        assert shown["cooldowns"] == [{"rule": "r", "key": "", "fired_at": NOW_MS + at * MINUTE_MS}]
        assert shown["caps"] == [{"rule": "r", "fired_at": [NOW_MS + at * MINUTE_MS]}]


@pytest.mark.parametrize(("begun", "received"), [(0, 10 + 1 / 6), (None, 10 + 1 / 6), (60, 60)], ids=str)
def test_the_record_time_of_an_end_is_the_later_of_the_end_and_the_beginning(
    begun: float | None, received: float
) -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED, cooldown_ms=TEN).send(0, record_minute=begun).stream(10)
    assert [firing.received_ms - NOW_MS for firing in feed.oracle.firings["u1"]] == [received * MINUTE_MS]


def test_the_record_time_of_what_was_followed_is_that_of_the_event_that_follows() -> None:
    feed = RuleFeed(sequence=FOLLOWED, cooldown_ms=TEN).send(0, record_minute=60).send(7, "follow", record_minute=20)
    assert [firing.received_ms - NOW_MS for firing in feed.oracle.firings["u1"]] == [20 * MINUTE_MS]


@pytest.mark.parametrize("by", ["cooldown", "cap", "day"])
def test_firings_count_by_event_time_and_by_record_time(by: str) -> None:
    rules = {"cooldown": {"cooldown_ms": 2 * TEN}, "cap": {"cap_count": 1, "cap_window_ms": 2 * TEN}}
    feed = RuleFeed(**rules.get(by, {"cap_count": 1, "cap_per": "day"}))
    day = 24 * 60
    feed.oracle.now_ms = NOW_MS + 5 * DAY_MS
    for at, received in ((0, 0), (-day, 1), (-day, 3 * day), (day, 2), (day, day), (day, 5 * day), (5 * day, None)):
        feed.send(at, record_minute=received)
    assert feed.fired == ["begin0", "begin4", "begin6"]


def test_a_firing_is_forgotten_when_the_stream_is_past_the_later_of_its_times() -> None:
    for by, minutes in (
        ({"cooldown_ms": TEN}, 10),
        ({"cap_count": 1, "cap_window_ms": TEN}, 10),
        ({"cap_count": 1, "cap_per": "day"}, 24 * 60 - 30 + 26 * 60),
    ):
        for at, received in ((30, None), (30, 30), (-24 * 60, 30)):
            feed = RuleFeed(**by).send(at, record_minute=received).stream(30 + minutes - 0.1)
            feed.send(at, record_minute=received).stream(30 + minutes).send(at, record_minute=received)
            assert feed.fired == ["begin0", "begin2"]


@pytest.mark.parametrize(
    ("minute", "sequences"),
    [
        (-1, [("begin0", 0, 10)]),
        (0, [("begin1", 0, 10)]),
        (4, [("begin1", 4, 14)]),
        (10, [("begin1", 10, 20)]),
        (10.5, [("begin0", 0, 10), ("begin1", 10.5, 20.5)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["followed_by", "not_followed_by"])
def test_a_beginning_while_a_sequence_is_open_restarts_it_or_opens_a_second(
    kind: str, minute: float, sequences: Any
) -> None:
    feed = RuleFeed(sequence={"kind": kind, "within_ms": TEN}).send(0).send(minute)
    assert feed.open == sequences
    assert feed.oracle.actions == []


def test_of_two_open_sequences_the_one_the_event_is_within_restarts_and_between_them_none_does() -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED).send(0).send(20).send(15)
    assert feed.open == [("begin0", 0, 10), ("begin1", 20, 30)]
    assert feed.send(8).open == [("begin3", 8, 18), ("begin1", 20, 30)]
    assert feed.send(18).open == [("begin4", 18, 28), ("begin1", 20, 30)]
    assert feed.send(25, "follow").open == []


def test_one_event_follows_first_and_then_begins_and_never_follows_itself() -> None:
    feed = RuleFeed(sequence=FOLLOWED).send(0, "begin and follow")
    assert (feed.fired, feed.open) == ([], [("begin and follow0", 0, 10)])
    feed.send(1, "begin and follow")
    assert (feed.fired, feed.open) == (["begin and follow1"], [("begin and follow1", 1, 11)])
    feed = RuleFeed(sequence=NOT_FOLLOWED).send(0).send(2, "begin and follow").stream(10)
    assert (feed.fired, feed.open) == ([], [("begin and follow1", 2, 12)])
    assert feed.stream(12).fired == ["begin and follow1"]


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, 1.0, True),
        (1, "1", False),
        (1, True, False),
        ("", "", True),
        ([1, {"a": None}], [1.0, {"a": None}], True),
        ([1], [True], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        (None, None, False),
        (False, False, True),
    ],
)
def test_with_match_json_values_are_compared(left: Any, right: Any, same: bool) -> None:
    feed = RuleFeed(sequence=FOLLOWED | {"match": "parameters.cart.id"})
    feed.send(0, parameters={"cart": {"id": left}}).send(1, "follow", parameters={"cart": {"id": right}})
    assert feed.fired == (["follow1"] if same else [])
    assert len(feed.open) == (0 if same or left is None else 1)


@pytest.mark.parametrize("parameters", [{}, {"cart": 5}, {"cart": {}}, {"cart": [1]}, {"cart": {"id": None}}])
def test_an_event_without_the_matching_field_neither_begins_nor_follows(parameters: dict[str, Any]) -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED | {"match": "parameters.cart.id"}).send(0, parameters=parameters)
    assert feed.open == []
    feed.send(0, parameters={"cart": {"id": 1}}).send(1, "follow", parameters=parameters)
    assert len(feed.open) == 1


def test_each_matching_value_has_its_own_sequence() -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED | {"match": "parameters.id"})
    for minute, name, value in ((0, "begin", 1), (1, "begin", 2), (2, "begin", 1), (3, "follow", 2)):
        feed.send(minute, name, parameters={"id": value})
    assert feed.open == [("begin2", 2, 12)]


def test_a_sequence_stopped_by_cooldown_or_cap_has_ended_all_the_same() -> None:
    for limit in ({"cooldown_ms": DAY_MS}, {"cap_count": 1, "cap_window_ms": DAY_MS}):
        feed = RuleFeed(sequence=FOLLOWED, **limit)
        feed.send(0).send(1, "follow").send(2).send(3, "follow")
        assert (feed.fired, feed.open, sum(feed.oracle.counts.values())) == (["follow1"], [], 1)
        feed = RuleFeed(sequence=NOT_FOLLOWED, **limit)
        feed.send(0).send(11).stream(30)
        assert (feed.fired, feed.open, sum(feed.oracle.counts.values())) == (["begin0"], [], 1)


@pytest.mark.parametrize("kind", ["followed_by", "not_followed_by"])
def test_the_cooldown_s_key_is_that_of_the_event_that_begins_the_sequence(kind: str) -> None:
    feed = RuleFeed(
        sequence={"kind": kind, "within_ms": TEN},
        cooldown_ms=DAY_MS,
        cooldown_key=lambda event, *_: str(event["parameters"]["sku"]),
    )
    for minute, sku in ((0, "a"), (20, "b"), (40, "a")):
        feed.send(minute, parameters={"sku": sku})
        if kind == "followed_by":
            feed.send(minute + 1, "follow", parameters={"sku": "x"})
        feed.stream(minute + 10)
    assert len(feed.fired) == 2
    assert [cooldown["key"] for cooldown in feed.oracle.state("u1")["ruleState"]["cooldowns"]] == ["a", "b"]


def test_several_ended_sequences_fire_in_the_order_of_their_ends_then_of_their_beginnings() -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED)
    assert feed.rule.sequence is not None
    longer = replace(feed.rule, name="longer", sequence=replace(feed.rule.sequence, within_ms=2 * TEN))
    feed.oracle.rules = [feed.rule, longer]
    feed.send(0).send(10.5).stream(60)
    assert fired(feed.oracle) == [("begin0", "r"), ("begin1", "r"), ("begin1", "longer")]
    feed = RuleFeed(sequence=NOT_FOLLOWED)
    feed.oracle.rules = [feed.rule, replace(longer, allows=lambda event, *_: event["event_name"] == "begin first")]
    feed.send(10, "begin").send(0, "begin first").stream(60)
    assert fired(feed.oracle) == [("begin first1", "longer"), ("begin0", "r")]


def test_a_sequence_that_is_over_shows_what_is_known_by_then_and_the_event_that_began_it() -> None:
    known = {"profile": {"n": 1}, "visit": None, "history": []}
    feed = RuleFeed(known, sequence=NOT_FOLLOWED).send(0).send(1, "other")
    feed.stream(10)
    (action,) = feed.oracle.actions
    assert action.body["event"]["event_id"] == action.event_id == "begin0"
    assert action.body["userProfile"] == {"n": 1}
    assert action.body["currentVisit"]["visit_id"] == "begin0"
    assert [row["event_id"] for row in action.body["eventHistory"]] == ["begin0", "other1"]


@pytest.mark.parametrize("policy", ["wait", "run", "skip"])
@pytest.mark.parametrize("answer", ["known", "unknown", "unavailable"])
def test_for_a_sequence_that_is_over_the_user_is_loaded_first(policy: str, answer: str) -> None:
    known = {"profile": {"n": 1}, "visit": None, "history": []}
    feed = RuleFeed(known, sequence=NOT_FOLLOWED, on_missing_profile=policy)
    oracle = feed.oracle
    feed.send(0)
    oracle.answer("u1")
    if policy == "skip":  # it passed the first event over
        feed.send(0)
    oracle.pass_time(oracle.now_ms + DAY_MS)
    assert (oracle.state("u1")["found"], len(feed.open), oracle.asked) == (False, 1, set())
    feed.stream(10)
    assert (feed.fired, oracle.asked, oracle.state("u1")["parked"]) == ([], {"u1"}, 0)
    oracle.restored()
    oracle.pass_time(oracle.now_ms + 100_000)
    assert (feed.fired, oracle.asked) == ([], {"u1"})
    oracle.api = {"u1": known} if answer == "known" else {}
    oracle.answer("u1", unavailable=answer == "unavailable")
    assert feed.open == []
    profile = {"known": {"n": 1}, "unknown": UNKNOWN}.get(answer, FAILED)
    passes_over = policy == "skip" and profile == FAILED
    assert [action.body["userProfile"] for action in oracle.actions] == ([] if passes_over else [profile])
    assert [action.body["currentVisit"] for action in oracle.actions] == ([] if passes_over else [None])
    assert oracle.state("u1")["found"]


@pytest.mark.parametrize(("name", "fires"), [("follow", []), ("other", ["begin0"])])
@pytest.mark.parametrize("answers", [True, False])
def test_events_that_wait_are_handled_before_the_sequence_is_over(answers: bool, name: str, fires: list[str]) -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED).send(0)
    oracle = feed.oracle
    oracle.pass_time(oracle.now_ms + DAY_MS)
    feed.stream(10)
    oracle.feed(b"u1", orjson.dumps(event("u1", event_name=name, timestamp=NOW_MS + TEN)))
    assert (feed.fired, oracle.state("u1")["parked"]) == ([], 1)
    oracle.restored(oracle.now_ms + 5_000)
    oracle.pass_time(oracle.now_ms + 9_999)
    feed.stream(10)
    assert (oracle.asked, feed.fired, len(feed.open)) == ({"u1"}, [], 1)
    if answers:
        oracle.answer("u1")
    else:
        oracle.pass_time(oracle.now_ms + 1)
    assert (feed.fired, feed.open) == (fires, [])


@pytest.mark.parametrize("unavailable", [True, False])
@pytest.mark.parametrize("policy", ["run", "skip"])
def test_where_no_event_waits_a_sequence_waits_for_the_profile_that_is_on_its_way(
    policy: str, unavailable: bool
) -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED, on_missing_profile=policy).send(0, "other").send(0)
    oracle = feed.oracle
    oracle.pass_time(oracle.now_ms + DAY_MS)
    oracle.feed(b"u1", orjson.dumps(event("u1", event_name="other")))
    feed.stream(10)
    assert (feed.fired, len(feed.open), oracle.asked, oracle.state("u1")["parked"]) == ([], 1, {"u1"}, 0)
    oracle.pass_time(oracle.now_ms + DAY_MS)
    assert (oracle.state("u1")["found"], oracle.asked) == (False, {"u1"})
    oracle.answer("u1", unavailable=unavailable)
    assert (feed.fired, feed.open) == ([] if policy == "skip" and unavailable else ["begin1"], [])


@pytest.mark.parametrize("policy", ["run", "skip"])
def test_nobody_is_asked_again_for_a_user_who_is_in_the_state_and_skip_rules_pass_over(policy: str) -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED, on_missing_profile=policy).send(0, "other").send(0)
    feed.oracle.users["u1"].enrichment = "unavailable"
    feed.stream(10)
    assert feed.fired == ([] if policy == "skip" else ["begin1"])
    assert (feed.open, feed.oracle.asked) == ([], set())


@pytest.mark.parametrize(("name", "is_open"), [("follow", False), ("other", True)])
def test_an_event_that_does_not_wait_may_follow_a_sequence_that_does(name: str, is_open: bool) -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED, on_missing_profile="run").send(0)
    feed.oracle.pass_time(feed.oracle.now_ms + DAY_MS)
    feed.stream(10)
    feed.oracle.feed(b"u1", orjson.dumps(event("u1", event_name=name, timestamp=NOW_MS + TEN)))
    assert len(feed.open) == int(is_open)
    feed.oracle.answer("u1")
    assert feed.fired == (["begin0"] if is_open else [])


@pytest.mark.parametrize("kind", ["followed_by", "not_followed_by"])
def test_an_event_of_a_skipped_rule_ends_not_followed_by_and_does_nothing_else(kind: str) -> None:
    feed = (
        RuleFeed(
            sequence={"kind": kind, "within_ms": TEN},
            on_missing_profile="skip",
        )
        .send(0, "other")
        .send(0)
    )
    assert len(feed.open) == 1
    feed.oracle.users["u1"].enrichment = "pending"
    feed.oracle.feed(b"u1", orjson.dumps(event("u1", event_name="begin and follow")))
    assert (feed.fired, len(feed.open)) == ([], 0 if kind == "not_followed_by" else 1)


def test_a_sequence_goes_on_under_the_rule_as_it_is_now_but_its_end_was_fixed() -> None:
    feed = RuleFeed(sequence=NOT_FOLLOWED).send(0)
    assert feed.rule.sequence is not None
    later = replace(feed.rule, version=2, sequence=replace(feed.rule.sequence, within_ms=1), actions=("new",))
    feed.oracle.rules = [later]
    assert feed.stream(9.9).fired == []
    feed.stream(10)
    assert [(action.version, action.action) for action in feed.oracle.actions] == [(2, "new")]


@pytest.mark.parametrize("kind", ["followed_by", "not_followed_by"])
@pytest.mark.parametrize("change", ["gone", "no sequence", "other kind"])
def test_a_sequence_is_dropped_if_no_rule_of_its_name_and_kind_is_live(kind: str, change: str) -> None:
    feed = RuleFeed(sequence={"kind": kind, "within_ms": TEN}).send(0)
    other = OracleSequence("followed_by" if kind == "not_followed_by" else "not_followed_by", lambda *_: True, TEN)
    rules = {"gone": [], "no sequence": [replace(feed.rule, sequence=None)]}
    feed.oracle.rules = rules.get(change, [replace(feed.rule, sequence=other)])
    feed.oracle.pass_time(feed.oracle.now_ms + DAY_MS)
    feed.stream(10)
    assert (feed.fired, feed.open, feed.oracle.asked) == ([], [], set())
    assert feed.oracle.counts == {"sequences_dropped": 1}


@pytest.mark.parametrize("where", ["filter", "sequence", "key"])
def test_lua_that_fails_is_an_error_of_the_rule_which_neither_fires_begins_nor_follows(where: str) -> None:
    def fails(event: Any, *_: Any) -> Any:
        if event["parameters"].get("bad"):
            raise RuleFails
        return "key"

    feed = RuleFeed(sequence=FOLLOWED, cooldown_ms=1, cooldown_key=fails if where == "key" else None)
    assert feed.rule.sequence is not None
    if where == "filter":
        feed.oracle.rules = [replace(feed.rule, allows=lambda *known: bool(fails(*known)))]
    elif where == "sequence":
        sequence = replace(feed.rule.sequence, follows=lambda *known: bool(fails(*known)))
        feed.oracle.rules = [replace(feed.rule, sequence=sequence)]
    feed.send(0).send(1, "begin and follow", parameters={"bad": True})
    assert (feed.fired, feed.open) == ([], [("begin0", 0, 10)])
    assert [letter.reason for letter in feed.oracle.dead_letters] == ["rule_error"]


def test_rule_state_outlives_the_user_s_ttl_but_not_forgetting() -> None:
    feed = RuleFeed(now="2024-01-01T23:00:00Z", quiet=("22:00", "08:00"), cooldown_ms=DAY_MS)
    sequence = OracleSequence("not_followed_by", lambda *_: False, DAY_MS)
    feed.oracle.rules = [feed.rule, replace(feed.rule, name="s", sequence=sequence)]
    feed.send(0)
    feed.oracle.ttl_ms = 1000
    feed.clock("2024-01-02T00:00:00Z")
    shown = feed.oracle.state("u1")
    assert not shown["found"]
    assert {name: len(rows) for name, rows in shown["ruleState"].items()} == {
        "cooldowns": 1,
        "caps": 0,
        "sequences": 1,
        "held": 1,
    }
    feed.oracle.forget("u1")
    assert feed.oracle.state("u1")["ruleState"] == {"cooldowns": [], "caps": [], "sequences": [], "held": []}
    feed.clock("2024-01-02T08:00:00Z").stream(60 * 24).send(1)
    assert (feed.fired, feed.oracle.counts) == (["begin1"], {})


def test_the_comparison_of_states_looks_at_sequences_and_at_what_is_held() -> None:
    feed = RuleFeed(now="2024-01-01T23:00:00Z", quiet=("22:00", "08:00"))
    sequence = OracleSequence("not_followed_by", lambda *_: False, DAY_MS)
    feed.oracle.rules = [feed.rule, replace(feed.rule, name="s", sequence=sequence)]
    shown = feed.send(0).oracle.state("u1")
    assert state_differences(feed.oracle, {"u1": shown}) == []
    for name in ("sequences", "held"):
        other = shown | {"ruleState": shown["ruleState"] | {name: []}}
        assert len(state_differences(feed.oracle, {"u1": other})) == 1


def test_of_a_long_record_a_dead_letter_holds_the_beginning() -> None:
    oracle = Oracle([])
    value = b"x" * 300_000
    oracle.feed(b"u1", value)

    def differences(held: bytes) -> list[str]:
        letter = {"reason": "too_large", "key": base64.b64encode(b"u1"), "value": base64.b64encode(held)}
        return dead_letter_differences(oracle, [letter])

    assert differences(value[: 256 * 1024]) == []
    assert len(differences(value[:1000])) == 2
