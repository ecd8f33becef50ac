"""``Backtest`` against recordings computed by hand, and against the oracle."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest

from tests.builders import (
    NOW_MS,
    fetched,
    oracle_rules,
    random_stream,
    rule,
    sample_rules,
    user_api_of,
)
from tests.oracle import Oracle, SeenAction, action_differences
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.backtest import Backtest, Report, RuleReport
from transforms.domain.simulation.recordings import records_of
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Replay:
    """A backtest and the actions that it sent; events are at minutes since the start."""

    def __init__(self, *rules: Rule, profile: dict[str, Any] | None = None, **settings: Any) -> None:
        self.sent: list[tuple[float, str, str, str]] = []  # minutes, rule, user, event
        self.profile = profile
        self.fetched_users: list[str] = []
        self.backtest = Backtest(rules, ShardSettings(**settings), self.fetch, LuaEngines(), self.on_sent)
        self.events = 0

    def fetch(self, user_id: str) -> FetchedUser:
        self.fetched_users.append(user_id)
        if self.profile is None:
            return NOTHING_KNOWN
        return fetched({"profile": self.profile, "visit": None, "history": []})

    def on_sent(self, at_ms: int, sent: FiredAction) -> None:
        event = orjson.loads(sent.body)["event"]
        self.sent.append(((at_ms - NOW_MS) / MINUTE_MS, sent.rule, sent.user_id, event["event_id"]))

    def event(self, user_id: str, name: str, minute: float, **fields: Any) -> Replay:
        self.events += 1
        at_ms = NOW_MS + int(minute * MINUTE_MS)
        value = {"event_id": f"e{self.events}", "user_id": user_id, "event_name": name, "timestamp": at_ms} | fields
        self.backtest.feed(Record(0, self.events, at_ms, user_id.encode(), orjson.dumps(value)))
        return self

    def finish(self) -> Report:
        self.backtest.finish()
        return self.backtest.report()


CART = {"not_followed_by": 'event.event_name == "checkout"', "within": "30m", "match": "parameters.cart_id"}


def cart(number: int) -> dict[str, Any]:
    return {"parameters": {"cart_id": number}}


def test_a_cooldown_by_hand() -> None:
    replay = Replay(rule("r", 'event.event_name == "go"', cooldown="1h"))
    for user_id, minute in (("a", 0), ("a", 30), ("b", 31), ("a", 60), ("a", 61)):
        replay.event(user_id, "go", minute)
    replay.event("c", "stay", 62)
    report = replay.finish()
    assert replay.sent == [(0, "r", "a", "e1"), (31, "r", "b", "e3"), (60, "r", "a", "e4")]
    (result,) = report.rules
    assert result.counts == {"allowed": 5, "fired": 3, "cooled_down": 2}
    assert (result.evaluated, result.users) == (6, 2)
    assert (report.events, report.users) == (6, 3)
    assert (report.first_ms, report.last_ms) == (NOW_MS, NOW_MS + 62 * MINUTE_MS)
    assert result.firings == [(NOW_MS, 1), (NOW_MS + 31 * MINUTE_MS, 1), (NOW_MS + 60 * MINUTE_MS, 1)]


def test_a_cap_by_hand() -> None:
    replay = Replay(rule("r", cap={"count": 2, "per": "day"}, time_zone={"default": "Europe/Berlin"}))
    # NOW_MS is 01:00 in Berlin.
    for minute in (0, 1, 2, 23 * 60 - 1, 23 * 60):
        replay.event("a", "go", minute)
    (result,) = replay.finish().rules
    assert [minute for minute, *_ in replay.sent] == [0, 1, 23 * 60]
    assert result.counts == {"allowed": 5, "fired": 3, "capped": 2}


def test_a_sequence_fires_when_its_end_and_the_lateness_have_passed_or_is_open_at_the_end() -> None:
    replay = Replay(rule("r", 'event.event_name == "add_to_cart"', sequence=CART))
    replay.event("a", "add_to_cart", 0, **cart(1))
    replay.event("a", "add_to_cart", 1, **cart(2))
    replay.event("b", "add_to_cart", 2, **cart(1))
    replay.event("a", "checkout", 10, **cart(1))
    replay.event("c", "page_view", 31.1)
    assert replay.sent == []
    replay.event("c", "page_view", 31.2)
    assert replay.sent == [(31 + 10 / 60, "r", "a", "e2")]
    replay.event("b", "checkout", 31.9, **cart(1))
    replay.event("b", "add_to_cart", 32, **cart(3))
    replay.event("d", "add_to_cart", 40, **cart(1))
    replay.event("e", "page_view", 62)
    report = replay.finish()
    assert replay.sent[1:] == [(62 + 10 / 60, "r", "b", "e8")]
    (result,) = report.rules
    assert result.counts == {"allowed": 5, "begun": 5, "followed": 2, "timed_out": 2, "fired": 2}
    assert (result.open_at_end, result.users) == (1, 2)
    assert report.last_ms == NOW_MS + 62 * MINUTE_MS


def test_quiet_hours_hold_until_their_end_in_the_recording_s_time() -> None:
    quiet = {"start": "22:00", "end": "08:00"}
    replay = Replay(rule("r", 'event.event_name == "go"', quiet_hours=quiet))
    replay.event("a", "go", 0).event("a", "go", 60).event("b", "stay", 479)
    assert replay.sent == []
    replay.event("b", "stay", 481)
    assert replay.sent == [(480, "r", "a", "e1"), (480, "r", "a", "e2")]
    replay.event("c", "go", 22 * 60)
    (result,) = replay.finish().rules
    assert (result.counts["fired"], result.counts["held"], result.held_at_end, result.users) == (
        3,
        3,
        1,
        1,
    )


def test_users_are_forgotten_and_loaded_again_as_the_recording_s_time_goes_on() -> None:
    replay = Replay(rule("r", "#history == 1"), profile={"country": "US"})
    replay.event("a", "go", 0).event("a", "go", 9.9).event("a", "go", 20).event("a", "go", 29)
    report = replay.finish()
    assert replay.fetched_users == ["a", "a"]
    assert [event for *_, event in replay.sent] == ["e2", "e4"]
    assert report.counts["users_fetched"] == 2


def test_only_users_that_are_not_idle_have_state() -> None:
    replay = Replay(rule("r"))
    for number in range(3000):
        replay.event(f"user-{number}", "go", number / 60)
    assert len(replay.backtest._simulator.state.users) == 600
    assert replay.finish().users == 3000


def test_errors_are_counted_and_the_first_is_shown() -> None:
    replay = Replay(rule("bad", "event.parameters.a.b == 1"), rule("good"))
    replay.event("a", "go", 0, parameters={"a": {"b": 2}}).event("a", "go", 1).event("a", "go", 2)
    report = replay.finish()
    bad, good = report.rules
    assert bad.counts == {"error": 2}
    assert bad.first_error is not None
    assert "bad:1" in bad.first_error
    assert (good.counts["fired"], good.first_error) == (3, None)
    assert report.dead_letters == {"rule_error": 2}


def test_a_rule_in_quarantine_is_not_evaluated_and_comes_back_by_the_recording_s_time() -> None:
    replay = Replay(rule("loops", 'while event.event_name == "go" do end; return true'), rule("other"))
    for minute in (0, 1, 2, 3, 4, 13):
        replay.event("a", "go" if minute < 13 else "stay", minute)
    loops, other = replay.finish().rules
    assert (loops.evaluated, other.evaluated) == (4, 6)
    assert loops.counts == {"error": 3, "tripped": 3, "quarantined": 2, "allowed": 1, "fired": 1}


def test_rejected_events_are_dead_letters_by_reason_and_repeats_are_not_evaluated() -> None:
    replay = Replay(rule("r"))
    replay.event("a", "go", 0).event("a", "go", 1, event_id="e1")
    for key, value in (
        (b"a", b'{"event_id":"e","user_id":"b","event_name":"go","timestamp":%d}' % NOW_MS),
        (b"a", b"{"),
    ):
        replay.backtest.feed(Record(0, 9, NOW_MS + 3 * MINUTE_MS, key, value))
    report = replay.finish()
    assert report.dead_letters == {"key_mismatch": 1, "not_json": 1}
    assert (report.counts["duplicates"], report.rules[0].evaluated, report.events) == (1, 1, 4)


def test_webhooks_are_delivered_at_once_so_that_none_waits_for_others() -> None:
    replay = Replay(rule("r", actions=[{"type": "webhook", "destination": "shop"}, {"type": "debug"}]))
    for number in range(150):
        replay.event("a", "go", number / 60)
    report = replay.finish()
    assert len(replay.sent) == 300
    assert (report.dead_letters, report.rules[0].users, report.counts["actions"]) == ({}, 1, 300)


def test_time_does_not_go_back_where_events_are_late() -> None:
    replay = Replay(rule("r"))
    replay.event("a", "go", 60).event("a", "go", 10)
    assert [minute for minute, *_ in replay.sent] == [60, 60]


@pytest.mark.parametrize("fields", [{"cap": {"count": 1, "window": "2h"}}, {"cooldown": "2h"}], ids=str)
def test_events_of_the_day_before_that_come_at_once_are_stopped_as_if_they_were_of_today(fields: Any) -> None:
    lines = [
        orjson.dumps({"event_id": f"e{n}", "user_id": "a", "event_name": "go", "timestamp": NOW_MS + hour * HOUR_MS})
        for n, hour in enumerate((0, -24, -18, -12, 3, -24))
    ]
    replay = Replay(rule("r", **fields))
    for record in records_of(lines, "file", NOW_MS + DAY_MS):
        replay.backtest.feed(record)
    replay.finish()
    assert [event for *_, event in replay.sent] == ["e0", "e4"]


def test_two_rule_sets_are_compared_rule_by_rule() -> None:
    events = [("a", "go", 0), ("a", "go", 5), ("b", "go", 6), ("c", "stay", 7)]
    before = Replay(rule("same"), rule("changed", 'event.event_name == "go"'), rule("gone"))
    after = Replay(rule("same"), rule("new"), rule("changed", 'event.event_name == "stay"'))
    for replay in (before, after):
        for event in events:
            replay.event(*event)
        replay.finish()
    compared = {
        rule.rule: (fired(rule.before), fired(rule.after), rule.users_gained, rule.users_lost)
        for rule in before.backtest.differences(after.backtest)
    }
    assert compared == {
        "same": (4, 4, 0, 0),
        "changed": (3, 1, 1, 2),
        "gone": (4, None, 0, 3),
        "new": (None, 4, 3, 0),
    }
    assert list(compared) == ["same", "changed", "gone", "new"]


def fired(report: RuleReport | None) -> int | None:
    return None if report is None else report.counts["fired"]


def test_an_empty_recording_is_no_error() -> None:
    report = Replay(rule("r")).finish()
    assert (report.events, report.first_ms, report.last_ms, report.rules[0].counts) == (0, None, None, {})


@pytest.mark.slow
@pytest.mark.parametrize("every_ms", [10, 20_000])
@pytest.mark.parametrize("policies", [("wait",), ("run", "skip")])
def test_a_random_stream_does_what_the_oracle_says(every_ms: int, policies: tuple[str, ...]) -> None:
    """With 20 s between records, users are forgotten during the replay."""
    records = list(random_stream(7, users=40, events=1500))
    api = user_api_of({f"user-{number:04d}" for number in range(40)})
    oracle = Oracle(oracle_rules(policies), api)
    seen_actions: list[SeenAction] = []

    def on_sent(at_ms: int, action: FiredAction) -> None:
        seen_actions.append(SeenAction(orjson.loads(action.body), action.rule, action.rule_version, action.action_id))

    backtest = Backtest(
        sample_rules(policies=policies), ShardSettings(), lambda user: fetched(api.get(user)), LuaEngines(), on_sent
    )
    for number, (key, value) in enumerate(records):
        at_ms = NOW_MS + 100_000 + number * every_ms
        oracle.feed(key, value, at_ms, at_ms)
        backtest.feed(Record(0, number, at_ms, key, value))
    backtest.finish()
    report = backtest.report()
    assert oracle.actions
    assert action_differences(oracle, seen_actions) == []
    assert report.dead_letters == Counter(letter.reason for letter in oracle.dead_letters)
    by_rule = Counter(action.rule for action in oracle.actions)
    users = {name: {action.user_id for action in oracle.actions if action.rule == name} for name in by_rule}
    assert {rule.rule: rule.counts["fired"] for rule in report.rules if rule.counts.get("fired")} == by_rule
    assert {rule.rule: rule.users for rule in report.rules if rule.users} == {
        name: len(of) for name, of in users.items()
    }
    assert report.users == len({action.user_id for action in oracle.actions} | set(oracle_users(records)))


def oracle_users(records: list[tuple[bytes, bytes]]) -> set[str]:
    """The users with a valid event."""
    oracle = Oracle([])
    for key, value in records:
        oracle.feed(key, value)
    return set(oracle.users)
