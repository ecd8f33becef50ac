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
from transforms.domain.events.record import Record
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.backtest import Backtest, Report, RuleReport
from transforms.domain.simulation.simulator import SentAction
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Played:
    """A backtest of events (user, name, minutes since the start, fields), and what was sent when."""

    def __init__(self, *rules: Rule, profile: dict[str, Any] | None = None, **settings: Any) -> None:
        self.sent: list[tuple[float, str, str, str]] = []  # minutes, rule, user, event
        self.profile = profile
        self.asked: list[str] = []
        self.backtest = Backtest(rules, ShardSettings(**settings), self.fetch, self.note)
        self.events = 0

    def fetch(self, user_id: str) -> FetchedUser:
        self.asked.append(user_id)
        if self.profile is None:
            return NOTHING_KNOWN
        return fetched({"profile": self.profile, "visit": None, "history": []})

    def note(self, at_ms: int, sent: SentAction) -> None:
        event = orjson.loads(sent.body)["event"]
        self.sent.append(((at_ms - NOW_MS) / MINUTE_MS, sent.rule, sent.user_id, event["event_id"]))

    def event(self, user_id: str, name: str, minute: float, **fields: Any) -> Played:
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
    played = Played(rule("r", 'event.event_name == "go"', cooldown="1h"))
    for user_id, minute in (("a", 0), ("a", 30), ("b", 31), ("a", 60), ("a", 61)):
        played.event(user_id, "go", minute)
    played.event("c", "stay", 62)
    report = played.finish()
    assert played.sent == [(0, "r", "a", "e1"), (31, "r", "b", "e3"), (60, "r", "a", "e4")]
    (of_rule,) = report.rules
    assert of_rule.counts == {"allowed": 5, "fired": 3, "cooled_down": 2}
    assert (of_rule.evaluated, of_rule.users) == (6, 2)
    assert (report.events, report.users) == (6, 3)
    assert (report.first_ms, report.last_ms) == (NOW_MS, NOW_MS + 62 * MINUTE_MS)
    assert of_rule.firings == [(NOW_MS, 1), (NOW_MS + 31 * MINUTE_MS, 1), (NOW_MS + 60 * MINUTE_MS, 1)]


def test_a_cap_by_hand() -> None:
    played = Played(rule("r", cap={"count": 2, "per": "day"}, time_zone={"default": "Europe/Berlin"}))
    # NOW_MS is 01:00 in Berlin.
    for minute in (0, 1, 2, 23 * 60 - 1, 23 * 60):
        played.event("a", "go", minute)
    (of_rule,) = played.finish().rules
    assert [minute for minute, *_ in played.sent] == [0, 1, 23 * 60]
    assert of_rule.counts == {"allowed": 5, "fired": 3, "capped": 2}


def test_a_sequence_fires_when_its_end_and_the_lateness_have_passed_or_is_open_at_the_end() -> None:
    played = Played(rule("r", 'event.event_name == "add_to_cart"', sequence=CART))
    played.event("a", "add_to_cart", 0, **cart(1))
    played.event("a", "add_to_cart", 1, **cart(2))
    played.event("b", "add_to_cart", 2, **cart(1))
    played.event("a", "checkout", 10, **cart(1))
    played.event("c", "page_view", 31.1)
    assert played.sent == []
    played.event("c", "page_view", 31.2)
    assert played.sent == [(31 + 10 / 60, "r", "a", "e2")]
    played.event("b", "checkout", 31.9, **cart(1))
    played.event("b", "add_to_cart", 32, **cart(3))
    played.event("d", "add_to_cart", 40, **cart(1))
    played.event("e", "page_view", 62)
    report = played.finish()
    assert played.sent[1:] == [(62 + 10 / 60, "r", "b", "e8")]
    (of_rule,) = report.rules
    assert of_rule.counts == {"allowed": 5, "begun": 5, "followed": 2, "timed_out": 2, "fired": 2}
    assert (of_rule.open_at_end, of_rule.users) == (1, 2)
    assert report.last_ms == NOW_MS + 62 * MINUTE_MS


def test_quiet_hours_hold_until_their_end_in_the_recording_s_time() -> None:
    quiet = {"start": "22:00", "end": "08:00"}
    played = Played(rule("r", 'event.event_name == "go"', quiet_hours=quiet))
    played.event("a", "go", 0).event("a", "go", 60).event("b", "stay", 479)
    assert played.sent == []
    played.event("b", "stay", 481)
    assert played.sent == [(480, "r", "a", "e1"), (480, "r", "a", "e2")]
    played.event("c", "go", 22 * 60)
    (of_rule,) = played.finish().rules
    assert (of_rule.counts["fired"], of_rule.counts["held"], of_rule.held_at_end, of_rule.users) == (3, 3, 1, 1)


def test_users_are_forgotten_and_loaded_again_as_the_recording_s_time_goes_on() -> None:
    played = Played(rule("r", "#history == 1"), profile={"country": "US"})
    played.event("a", "go", 0).event("a", "go", 9.9).event("a", "go", 20).event("a", "go", 29)
    report = played.finish()
    assert played.asked == ["a", "a"]
    assert [event for *_, event in played.sent] == ["e2", "e4"]
    assert report.counts["users_fetched"] == 2


def test_state_is_held_of_users_that_are_not_idle_only() -> None:
    played = Played(rule("r"))
    for number in range(3000):
        played.event(f"user-{number}", "go", number / 60)
    assert len(played.backtest._view.users) == 600
    assert played.finish().users == 3000


def test_errors_are_counted_and_the_first_is_shown() -> None:
    played = Played(rule("bad", "event.parameters.a.b == 1"), rule("good"))
    played.event("a", "go", 0, parameters={"a": {"b": 2}}).event("a", "go", 1).event("a", "go", 2)
    report = played.finish()
    bad, good = report.rules
    assert bad.counts == {"error": 2}
    assert bad.first_error is not None
    assert "bad:1" in bad.first_error
    assert (good.counts["fired"], good.first_error) == (3, None)
    assert report.dead_letters == {"rule_error": 2}


def test_a_rule_in_quarantine_is_not_evaluated_and_comes_back_by_the_recording_s_time() -> None:
    played = Played(rule("loops", 'while event.event_name == "go" do end; return true'), rule("other"))
    for minute in (0, 1, 2, 3, 4, 13):
        played.event("a", "go" if minute < 13 else "stay", minute)
    loops, other = played.finish().rules
    assert (loops.evaluated, other.evaluated) == (4, 6)
    assert loops.counts == {"error": 3, "tripped": 3, "quarantined": 2, "allowed": 1, "fired": 1}


def test_rejected_events_are_dead_letters_by_reason_and_repeats_are_not_evaluated() -> None:
    played = Played(rule("r"))
    played.event("a", "go", 0).event("a", "go", 1, event_id="e1")
    for key, value in ((b"a", b'{"event_id":"e","user_id":"b","event_name":"go","timestamp":1}'), (b"a", b"{")):
        played.backtest.feed(Record(0, 9, NOW_MS + 3 * MINUTE_MS, key, value))
    report = played.finish()
    assert report.dead_letters == {"key_mismatch": 1, "not_json": 1}
    assert (report.counts["duplicates"], report.rules[0].evaluated, report.events) == (1, 1, 4)


def test_webhooks_arrive_at_once_so_that_none_waits_for_others() -> None:
    played = Played(rule("r", actions=[{"type": "webhook", "destination": "shop"}, {"type": "debug"}]))
    for number in range(150):
        played.event("a", "go", number / 60)
    report = played.finish()
    assert len(played.sent) == 300
    assert (report.dead_letters, report.rules[0].users, report.counts["actions"]) == ({}, 1, 300)


def test_time_does_not_go_back_where_events_are_late() -> None:
    played = Played(rule("r"))
    played.event("a", "go", 60).event("a", "go", 10)
    assert [minute for minute, *_ in played.sent] == [60, 60]


def test_two_rule_sets_are_compared_rule_by_rule() -> None:
    events = [("a", "go", 0), ("a", "go", 5), ("b", "go", 6), ("c", "stay", 7)]
    before = Played(rule("same"), rule("changed", 'event.event_name == "go"'), rule("gone"))
    after = Played(rule("same"), rule("new"), rule("changed", 'event.event_name == "stay"'))
    for played in (before, after):
        for one in events:
            played.event(*one)
        played.finish()
    found = {
        one.rule: (fired(one.before), fired(one.after), one.users_gained, one.users_lost)
        for one in before.backtest.differences(after.backtest)
    }
    assert found == {"same": (4, 4, 0, 0), "changed": (3, 1, 1, 2), "gone": (4, None, 0, 3), "new": (None, 4, 3, 0)}
    assert list(found) == ["same", "changed", "gone", "new"]


def fired(one: RuleReport | None) -> int | None:
    return None if one is None else one.counts["fired"]


def test_a_recording_of_nothing_is_no_error() -> None:
    report = Played(rule("r")).finish()
    assert (report.events, report.first_ms, report.last_ms, report.rules[0].counts) == (0, None, None, {})


@pytest.mark.parametrize("every_ms", [10, 20_000])
@pytest.mark.parametrize("policies", [("wait",), ("run", "skip")])
def test_a_random_stream_does_what_the_oracle_says(every_ms: int, policies: tuple[str, ...]) -> None:
    """With 20 s between records users are forgotten on the way."""
    records = list(random_stream(7, users=40, events=1500))
    api = user_api_of({f"user-{number:04d}" for number in range(40)})
    oracle = Oracle(oracle_rules(policies), api)
    seen: list[SeenAction] = []

    def note(at_ms: int, one: SentAction) -> None:
        seen.append(SeenAction(orjson.loads(one.body), one.rule, one.version, one.action_id))

    backtest = Backtest(sample_rules(policies=policies), ShardSettings(), lambda user: fetched(api.get(user)), note)
    for number, (key, value) in enumerate(records):
        at_ms = NOW_MS + 100_000 + number * every_ms
        oracle.feed(key, value, at_ms)
        backtest.feed(Record(0, number, at_ms, key, value))
    backtest.finish()
    report = backtest.report()
    assert oracle.actions
    assert action_differences(oracle, seen) == []
    assert report.dead_letters == Counter(letter.reason for letter in oracle.dead_letters)
    by_rule = Counter(action.rule for action in oracle.actions)
    users = {name: {action.user_id for action in oracle.actions if action.rule == name} for name in by_rule}
    assert {one.rule: one.counts["fired"] for one in report.rules if one.counts.get("fired")} == by_rule
    assert {one.rule: one.users for one in report.rules if one.users} == {name: len(of) for name, of in users.items()}
    assert report.users == len({action.user_id for action in oracle.actions} | set(oracle_users(records)))


def oracle_users(records: list[tuple[bytes, bytes]]) -> set[str]:
    """Everybody with a good event."""
    oracle = Oracle([])
    for key, value in records:
        oracle.feed(key, value)
    return set(oracle.users)
