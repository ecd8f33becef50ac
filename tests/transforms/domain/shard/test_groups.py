"""docs/rules.md, "Groups", sentence by sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, batch, control, event, fetched, grouped, published, rule, rule_sets
from transforms.domain.events.record import Record
from transforms.domain.rules.model import Rule
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import Decision
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult
from transforms.domain.webhooks.delivery_queue import DELIVERED, RETRY, DeliveryResult
from transforms.domain.webhooks.retries import RetrySchedule

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
# Noon in UTC on Monday, 2024-01-01, is 1 p.m. in Berlin.
NOON = NOW_MS - NOW_MS % DAY + 12 * HOUR
BERLIN = {"profile": {"timezone": "Europe/Berlin"}, "visit": None, "history": []}
ONE_A_DAY = {"cap": {"count": 1, "per": "day"}}
TWO_MINUTES = {**ONE_A_DAY, "within": "2m"}
HOOK = [{"type": "webhook", "destination": "shop"}]


def on(name: str, event_name: str = "go", priority: int = 0, group: str | None = "marketing", **fields: Any) -> Rule:
    """A rule of the group that fires at events of a name."""
    of_group = {} if group is None else {"group": group, "priority": priority}
    return rule(name, f'event.event_name == "{event_name}"', **of_group, **fields)


class Watched:
    """A shard with a decision log and one user."""

    def __init__(self, rules: Sequence[Rule], known: Any = BERLIN, **settings: Any) -> None:
        given = {"ttl_ms": 10 * MINUTE, "allowed_lateness_ms": 10 * SECOND, "decision_sample": 0.0} | settings
        given["destinations"] = {"shop": RetrySchedule()}
        self.shard = Shard(filters=rule_sets(RuleSet(0, tuple(rules)), "rules"), **given)
        self.shard.now_ms = NOON
        self.known = known
        self.counts: Counter[str] = Counter()
        self.rule_counts: Counter[tuple[str, str]] = Counter()
        self.decisions: list[Decision] = []
        self.letters: list[Any] = []

    def see(
        self, event_id: str, at_ms: int = 0, name: str = "go", received: int | None = None, **fields: Any
    ) -> list[str]:
        made = event("u", event_id=event_id, event_name=name, timestamp=NOON + at_ms) | fields
        record_ms = NOON + (at_ms if received is None else received)
        return self.take(batch(Record(0, 0, record_ms, b"u", orjson.dumps(made))))

    def take(self, given: Any = None, **inputs: Any) -> list[str]:
        """The actions that leave with a step and those that it causes, as RULE:EVENT."""
        left, done = [], self.shard.step(given, **inputs)
        while True:
            left += self._add(done)
            if not done.users_to_fetch:
                return left
            done = self.shard.step(answers=[Answer("u", fetched(self.known))])

    def _add(self, done: StepResult) -> list[str]:
        self.counts += done.counts
        self.rule_counts += done.rule_counts
        self.decisions += done.decisions
        self.letters += done.dead_letters
        return [f"{sent.rule}:{orjson.loads(sent.body)['event']['event_id']}" for sent in done.decided_actions]

    def pass_stream(self, to_ms: int) -> list[str]:
        return self.take(stream_ms=NOON + to_ms)

    def pass_time(self, ms: int) -> list[str]:
        self.shard.now_ms += ms
        return self.take()

    def told(self, *kinds: str) -> list[str]:
        """The decisions of these kinds since the last call, as RULE: WHAT, and for losers by whom."""
        found = [each for each in self.decisions if each.decision in kinds]
        self.decisions = []
        return [f"{each.rule}: {each.decision}{f' by {each.winner}' if each.winner else ''}" for each in found]

    def remembered(self) -> Any:
        return self.shard.inspect("u")["ruleState"]

    def restore(self) -> None:
        self.shard.restore()


LOSERS = ("group_capped", "outranked", "suppressed", "expired", "dropped", "cooled_down", "capped", "error")


# The cap


def test_rules_of_a_group_share_its_cap() -> None:
    watched = Watched(grouped({"marketing": ONE_A_DAY}, on("a"), on("b", "stop"), on("free", "stop", group=None)))
    assert watched.see("1") == ["a:1"]
    assert watched.see("2", HOUR, "stop") == ["free:2"]
    assert watched.told(*LOSERS) == ["b: group_capped"]
    assert watched.counts["rules_capped_by_group"] == watched.rule_counts["b", "capped_by_group"] == 1
    assert watched.see("3", DAY, "stop") == ["free:3", "b:3"]


def test_of_one_event_the_highest_priority_takes_the_cap_and_ties_go_by_name() -> None:
    rules = [on("c", priority=5), on("b", priority=9), on("a", priority=5)]
    watched = Watched(grouped({"marketing": {"cap": {"count": 2, "window": "1h"}}}, *rules))
    assert watched.see("1") == ["b:1", "a:1"]
    winner = next(each for each in watched.decisions if each.decision == "fired")
    loser = next(each for each in watched.decisions if each.decision == "outranked")
    assert (loser.rule, loser.winner, loser.winner_action_id) == ("c", "b", winner.action_id)
    assert loser.group == "marketing"
    assert watched.see("2", MINUTE) == []
    assert watched.told(*LOSERS) == ["c: outranked by b", *["b: group_capped", "a: group_capped", "c: group_capped"]]


def test_a_group_s_cap_counts_by_event_time_and_by_record_time() -> None:
    watched = Watched(grouped({"marketing": ONE_A_DAY}, on("a")))
    # Yesterday's event, sent today: it takes today's place by record time, and yesterday's by event time.
    assert watched.see("1", -DAY, received=0) == ["a:1"]
    assert watched.see("2", MINUTE) == []
    assert watched.see("3", -DAY + MINUTE, received=DAY) == []
    assert watched.see("4", DAY) == ["a:4"]
    assert watched.told("group_capped") == ["a: group_capped"] * 2


def test_a_group_s_days_are_those_of_its_time_zone() -> None:
    noon = {"cap": {"count": 1, "per": "day"}, "time_zone": {"profile_field": None, "default": "Etc/GMT-12"}}
    watched = Watched(grouped({"marketing": noon}, on("a")))
    assert watched.see("1", -1) == ["a:1"]
    assert watched.see("2", 0) == ["a:2"]  # midnight there
    assert watched.see("3", 1) == []


def test_a_rule_s_own_cap_stops_it_before_the_group_counts() -> None:
    rules = grouped({"marketing": ONE_A_DAY}, on("a", priority=9, cooldown="1w"), on("b"))
    watched = Watched(rules)
    assert watched.see("1") == ["a:1"]
    assert watched.see("2", DAY) == ["b:2"]
    assert watched.told("cooled_down", "outranked") == ["b: outranked by a", "a: cooled_down"]


def test_who_loses_does_not_use_up_its_own_cap() -> None:
    rules = grouped({"marketing": ONE_A_DAY}, on("a", priority=9, cooldown="2d"), on("b", cooldown="1w"))
    watched = Watched(rules)
    assert watched.see("1") == ["a:1"]
    assert watched.see("2", DAY) == ["b:2"]


def test_a_group_s_memory_is_restored_and_forgotten_when_no_window_can_ask() -> None:
    watched = Watched(grouped({"marketing": {"cap": {"count": 1, "window": "1h"}}}, on("a")))
    assert watched.see("1") == ["a:1"]
    watched.restore()
    watched.shard.now_ms += 20 * MINUTE  # the user is forgotten, the group's memory is not
    assert watched.see("2", HOUR - 1) == []
    assert watched.remembered()["groups"] == [{"group": "marketing", "fired_at": [NOON]}]
    watched.pass_stream(HOUR + 10 * SECOND)
    assert "groups" not in watched.remembered()


def test_a_timed_out_sequence_takes_the_cap_when_the_stream_is_there() -> None:
    waits = {"sequence": {"not_followed_by": "false", "within": "30m"}}
    rules = grouped({"marketing": ONE_A_DAY}, on("low", **waits), on("high", priority=2, **waits))
    watched = Watched(rules)
    assert watched.see("1") == []
    assert watched.pass_stream(30 * MINUTE + 10 * SECOND) == ["high:1"]
    assert watched.told(*LOSERS) == ["low: outranked by high"]


# Within


def test_the_highest_priority_speaks_when_the_time_is_over() -> None:
    rules = grouped({"marketing": TWO_MINUTES}, on("low", "first", 1), on("high", "second", 7), on("mid", "third", 5))
    watched = Watched(rules)
    assert watched.see("1", 0, "first") == watched.see("2", MINUTE, "second") == []
    assert watched.see("3", 2 * MINUTE - 1, "third") == []
    assert watched.told("pending") == ["low: pending", "high: pending", "mid: pending"]
    assert watched.pass_stream(2 * MINUTE - 1) == []
    assert watched.pass_stream(2 * MINUTE) == ["high:2"]
    losers = [each for each in watched.decisions if each.decision == "outranked"]
    winner = next(each for each in watched.decisions if each.decision == "fired")
    assert {(each.rule, each.winner, each.winner_action_id) for each in losers} == {
        ("mid", "high", winner.action_id),
        ("low", "high", winner.action_id),
    }
    assert watched.shard.state.rule_states.of("u").held == []


def test_a_replay_picks_the_same_winner() -> None:
    rules = grouped({"marketing": TWO_MINUTES}, on("low", "first", 1), on("high", "second", 7))
    watched = Watched(rules)
    watched.see("1", 0, "first")
    watched.restore()
    # After a downtime what waited in Kafka is handled long after its time, before the stream is there.
    watched.shard.now_ms += HOUR
    assert watched.see("2", MINUTE, "second") == []
    watched.restore()
    assert watched.pass_stream(HOUR) == ["high:2"]


def test_what_comes_at_the_end_waits_for_the_next_pick_and_the_cap_holds() -> None:
    rules = grouped({"marketing": TWO_MINUTES}, on("low", "first", 1), on("high", "second", 7))
    watched = Watched(rules)
    watched.see("1", 0, "first")
    # Its record time says that the first time is over, however far the stream is.
    assert watched.see("2", 2 * MINUTE, "second") == ["low:1"]
    assert watched.pass_stream(HOUR) == []
    assert watched.told(*LOSERS) == ["high: group_capped"]


def test_a_day_counts_the_time_of_the_pick() -> None:
    to_midnight = 11 * HOUR  # in Berlin
    watched = Watched(grouped({"marketing": TWO_MINUTES}, on("a")))
    watched.see("1", to_midnight - MINUTE)
    assert watched.pass_stream(to_midnight + MINUTE) == ["a:1"]
    watched.see("2", to_midnight + 5 * MINUTE)
    assert watched.pass_stream(to_midnight + HOUR) == []
    assert watched.told(*LOSERS) == ["a: group_capped"]
    watched.shard.now_ms += DAY
    watched.see("3", to_midnight + DAY)
    assert watched.pass_stream(to_midnight + DAY + HOUR) == ["a:3"]


def test_a_candidate_that_loses_does_not_use_up_its_own_cooldown() -> None:
    rules = grouped({"marketing": {"within": "2m"}}, on("low", "go", 1, cooldown="1w"), on("high", "go", 7))
    watched = Watched(rules)
    watched.see("1")
    assert watched.pass_stream(2 * MINUTE) == ["high:1"]
    assert watched.remembered()["cooldowns"] == []


def test_the_cooldown_of_the_winner_counts_before_its_next_event_is_decided() -> None:
    watched = Watched(grouped({"marketing": {"within": "2m"}}, on("a", cooldown="1d")))
    watched.see("1", 0)
    watched.see("2", MINUTE)
    assert watched.see("3", 3 * MINUTE) == ["a:1"]
    assert watched.told(*LOSERS) == ["a: cooled_down", "a: cooled_down"]


def test_a_candidate_whose_own_cooldown_has_begun_meanwhile_does_not_speak() -> None:
    rules = grouped({"marketing": {"within": "2m"}}, on("a", cooldown="1d"))
    watched = Watched(rules)
    watched.see("1", 0)
    watched.see("2", -MINUTE, received=-3 * MINUTE)  # a record that is out of order begins a time of its own
    assert watched.pass_stream(HOUR) == ["a:2"]
    assert watched.told(*LOSERS) == ["a: cooled_down"]


def test_all_actions_of_the_winner_go_out_and_none_of_a_loser() -> None:
    two = [{"type": "debug", "name": "one"}, {"type": "kafka", "name": "two"}]
    rules = grouped({"marketing": {"within": "1m"}}, on("low", actions=two), on("high", priority=1, actions=two))
    watched = Watched(rules)
    watched.see("1")
    assert watched.pass_stream(MINUTE) == ["high:1", "high:1"]
    assert watched.told("outranked") == ["low: outranked by high"] * 2


def test_too_many_candidates_of_a_user_become_dead_letters() -> None:
    watched = Watched(grouped({"marketing": {"within": "1h"}}, on("a")))
    for number in range(101):
        watched.see(str(number), number)
    assert [letter.reason for letter in watched.letters] == ["rule_state_full"]


# Quiet hours


NIGHT = {"quiet_hours": {"start": "13:00", "end": "14:00"}}  # noon to one in UTC


def test_what_quiet_hours_hold_contends_when_they_end() -> None:
    rules = grouped(
        {"marketing": TWO_MINUTES},
        on("held", priority=3, **NIGHT),
        on("held_too", priority=2, **NIGHT),
        on("day", "x", 9),
    )
    watched = Watched(rules)
    assert watched.see("1") == []
    assert watched.told("held", "pending") == ["held: held", "held_too: held"]
    assert watched.pass_time(HOUR) == []  # their group picks later
    assert watched.told("pending") == ["held: pending", "held_too: pending"]
    assert watched.see("2", HOUR + MINUTE, "x") == []
    assert watched.pass_stream(HOUR + 2 * MINUTE) == ["day:2"]
    assert watched.told(*LOSERS) == ["held: outranked by day", "held_too: outranked by day"]


def test_a_held_action_counts_when_it_is_released_and_not_before() -> None:
    rules = grouped({"marketing": ONE_A_DAY}, on("held", **NIGHT), on("day", "x"))
    watched = Watched(rules)
    assert watched.see("1") == []
    assert watched.see("2", 1, "x") == ["day:2"]
    watched.pass_time(HOUR)
    assert watched.pass_stream(HOUR) == []
    assert watched.told(*LOSERS) == ["held: group_capped"]


def test_without_within_the_highest_of_those_released_together_takes_the_cap() -> None:
    rules = grouped({"marketing": ONE_A_DAY}, on("low", "x", 1, **NIGHT), on("high", "y", 2, **NIGHT))
    watched = Watched(rules)
    watched.see("1", 0, "x")
    watched.see("2", 1, "y")
    watched.pass_time(HOUR)
    assert watched.pass_stream(HOUR) == ["high:2"]
    assert watched.told(*LOSERS, "released") == ["high: released", "low: outranked by high"]


def test_quiet_hours_that_begin_before_the_pick_hold_the_candidate() -> None:
    late = {"quiet_hours": {"start": "13:01", "end": "14:00"}}
    rules = grouped({"marketing": TWO_MINUTES}, on("quiet", priority=9, **late), on("other", priority=1))
    watched = Watched(rules)
    watched.see("1")
    watched.shard.now_ms = NOON + 2 * MINUTE
    assert watched.pass_stream(2 * MINUTE) == ["other:1"]
    assert watched.told("held", *LOSERS) == ["quiet: held"]
    watched.shard.now_ms = NOON + HOUR
    assert watched.take() == []
    assert watched.pass_stream(HOUR + 2 * MINUTE) == []
    assert watched.told(*LOSERS) == ["quiet: group_capped"]


# Suppression


def suppress(group: str, until: int | None = None, user: str = "u") -> Any:
    return control({"suppress": user, "group": group, "until": until})


@pytest.mark.parametrize(("group", "fires"), [("marketing", ["free:1"]), ("*", []), ("other", ["free:1", "a:1"])])
def test_a_suppressed_user_gets_nothing_of_the_group(group: str, fires: list[str]) -> None:
    watched = Watched(grouped({"marketing": {}}, on("a"), on("free", group=None)))
    watched.take(suppress(group))
    assert watched.see("1") == fires
    suppressed = [name for name in ("a", "free") if f"{name}:1" not in fires]
    assert sorted(watched.told("suppressed")) == [f"{name}: suppressed" for name in suppressed]
    assert watched.counts["rules_suppressed"] == len(suppressed)


def test_a_suppression_outlives_the_user_and_a_restore_until_it_is_lifted() -> None:
    watched = Watched(grouped({"marketing": {}}, on("a")))
    watched.take(suppress("marketing"))
    watched.restore()
    watched.shard.now_ms += 20 * DAY
    watched.take(stream_ms=NOON + 20 * DAY)
    assert watched.see("1", 20 * DAY) == []
    watched.take(control({"unsuppress": "u", "group": "*"}))  # lifts what was set for everything, and nothing else
    assert watched.see("2", 20 * DAY) == []
    watched.take(control({"unsuppress": "u", "group": "marketing"}))
    assert watched.see("3", 20 * DAY) == ["a:3"]


def test_a_suppression_ends_at_its_time() -> None:
    watched = Watched(grouped({"marketing": {}}, on("a")))
    watched.take(suppress("marketing", NOON + HOUR))
    assert watched.see("1", 0) == []
    assert watched.remembered()["suppressed"] == [{"group": "marketing", "until": NOON + HOUR}]
    watched.pass_time(HOUR - 1)
    assert watched.see("2", HOUR - 1) == []
    watched.pass_time(1)
    assert "suppressed" not in watched.remembered()
    assert watched.see("3", HOUR) == ["a:3"]


def test_held_actions_and_candidates_ask_again() -> None:
    rules = grouped(
        {"marketing": {"within": "2m"}}, on("held", "x", **NIGHT), on("waits", "y"), on("b", "x", group=None, **NIGHT)
    )
    watched = Watched(rules)
    watched.see("1", 0, "x")
    watched.see("2", 0, "y")
    watched.take(suppress("marketing"))
    assert watched.pass_time(HOUR) == ["b:1"]
    assert watched.pass_stream(HOUR) == []
    assert sorted(watched.told("suppressed")) == ["held: suppressed", "waits: suppressed"]


def test_webhooks_that_wait_for_a_try_end_at_once_and_one_in_flight_gets_no_further() -> None:
    watched = Watched(grouped({"marketing": {}}, on("a", actions=HOOK), on("free", "x", group=None, actions=HOOK)))
    watched.see("1")
    watched.see("2", 1)
    watched.see("3", 1, "x")
    first, second, free = watched.shard.state.deliveries["u"]
    done = watched.shard.step(suppress("marketing"), in_flight=[first.action_id])
    assert done.stopped_deliveries == [first.action_id]
    assert [(each.decision, each.action_id) for each in done.decisions] == [("suppressed", second.action_id)]
    assert done.counts["deliveries_suppressed"] == done.counts["action.webhook.shop.suppressed"] == 1
    result = DeliveryResult("u", first.action_id, RETRY, 1, 503, "busy")
    done = watched.shard.step(delivery_results=[result])
    assert [(each.decision, each.attempts) for each in done.decisions] == [("suppressed", 1)]
    assert list(watched.shard.state.deliveries["u"]) == [free]
    assert done.dead_letters == []


def test_one_in_flight_that_arrived_is_delivered() -> None:
    watched = Watched(grouped({"marketing": {}}, on("a", actions=HOOK)))
    watched.see("1")
    (first,) = watched.shard.state.deliveries["u"]
    watched.shard.step(suppress("*"), in_flight=[first.action_id])
    done = watched.shard.step(delivery_results=[DeliveryResult("u", first.action_id, DELIVERED, 1, 200)])
    assert [each.decision for each in done.decisions] == ["delivered"]


def test_the_profile_may_say_that_a_user_gets_nothing() -> None:
    groups = {"marketing": {"unless": "user.unsubscribed", "within": "2m"}}
    known = {**BERLIN, "profile": {"unsubscribed": True}}
    watched = Watched(grouped(groups, on("a")), known)
    assert watched.see("1") == []
    assert watched.told("suppressed", "pending") == ["a: suppressed"]
    watched = Watched(grouped(groups, on("a")))
    watched.see("1")
    assert watched.pass_stream(2 * MINUTE) == ["a:1"]


def test_the_profile_is_asked_again_when_the_group_picks_and_fetched_if_it_is_gone() -> None:
    watched = Watched(grouped({"marketing": {"unless": "user.unsubscribed", "within": "1h"}}, on("a")))
    watched.see("1")
    watched.pass_time(20 * MINUTE)  # the user is forgotten
    watched.known = {**BERLIN, "profile": {"unsubscribed": True}}
    assert watched.pass_stream(HOUR) == []
    assert watched.told("suppressed") == ["a: suppressed"]


def test_a_later_event_does_not_have_a_group_pick_before_the_profile_is_known() -> None:
    rules = grouped({"mail": {"unless": "user.out", "within": "1h"}}, on("a", group="mail", on_missing_profile="run"))
    watched = Watched(rules)
    watched.see("1")
    watched.pass_time(20 * MINUTE)  # the user is forgotten
    made = event("u", event_id="2", event_name="go", timestamp=NOON + 2 * HOUR)
    done = watched.shard.step(batch(Record(0, 0, NOON + 2 * HOUR, b"u", orjson.dumps(made))))
    assert done.users_to_fetch
    assert [each.decision for each in done.decisions] == ["pending"]
    watched.known = {**BERLIN, "profile": {"out": True}}
    watched.take(answers=[Answer("u", fetched(watched.known))])
    assert watched.pass_stream(3 * HOUR) == []
    assert watched.told("suppressed") == ["a: suppressed", "a: suppressed"]


def test_an_unless_that_fails_sends_nothing_and_is_an_error_of_the_rule() -> None:
    watched = Watched(grouped({"marketing": {"unless": "user.consent.mail == false"}}, on("a")))
    assert watched.see("1") == []
    assert watched.told("error") == ["a: error"]
    assert [letter.reason for letter in watched.letters] == ["rule_error"]
    assert "unless of group marketing" in watched.letters[0].detail


def test_forgetting_a_user_forgets_suppressions() -> None:
    watched = Watched(grouped({"marketing": {}}, on("a")))
    watched.take(suppress("marketing"))
    watched.take(control({"forget": "u"}))
    assert watched.shard.state.is_empty
    assert watched.counts["suppressions_forgotten"] == 1


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"suppress": "u"}, "group is missing"),
        ({"suppress": "u", "group": "Marketing"}, "group is 'Marketing', allowed is the name of a group"),
        ({"suppress": "u", "group": ""}, "group is ''"),
        ({"suppress": "u", "group": None}, "group is None"),
        ({"suppress": 7, "group": "*"}, "suppress is 7, allowed is a user id"),
        ({"suppress": "", "group": "*"}, "suppress is ''"),
        ({"suppress": "u", "group": "*", "until": -1}, "until is -1, allowed is a time in ms"),
        ({"suppress": "u", "group": "*", "until": True}, "until is True"),
        ({"suppress": "u", "group": "*", "until": 10**18}, "until is 1000000000000000000"),
        ({"suppress": "u", "group": "*", "until": "tomorrow"}, "until is 'tomorrow'"),
        ({"suppress": "u", "group": "*", "untill": 5}, "no such field 'untill'"),
        ({"unsuppress": "u", "group": "*", "until": 5}, "no such field 'until'"),
        ({"unsuppress": "u"}, "group is missing"),
    ],
)
def test_a_control_record_that_is_wrong_says_what_is_allowed(document: Any, message: str) -> None:
    watched = Watched(grouped({"marketing": {}}, on("a")))
    watched.take(control(document))
    assert [letter.reason for letter in watched.letters] == ["bad_control_record"]
    assert message in watched.letters[0].detail
    assert watched.see("1") == ["a:1"]


# Expiry


def test_an_expired_webhook_is_not_tried_again() -> None:
    watched = Watched([on("a", group=None, actions=HOOK, expires="30m")])
    watched.see("1")
    (first,) = watched.shard.state.deliveries["u"]
    watched.shard.now_ms += 29 * MINUTE
    done = watched.shard.step(delivery_results=[DeliveryResult("u", first.action_id, RETRY, 1, 503)])
    assert [each.decision for each in done.decisions] == ["retried"]
    watched.restore()
    watched.shard.now_ms += MINUTE
    done = watched.shard.step()
    assert [(each.decision, each.action_id) for each in done.decisions] == [("expired", first.action_id)]
    assert done.counts["deliveries_expired"] == 1
    assert done.dead_letters == []
    assert "u" not in watched.shard.state.deliveries


def test_one_that_expires_in_flight_is_what_its_result_says() -> None:
    for outcome, decision in ((DELIVERED, "delivered"), (RETRY, "expired")):
        watched = Watched([on("a", group=None, actions=HOOK, expires="30m")])
        watched.see("1")
        (first,) = watched.shard.state.deliveries["u"]
        watched.shard.now_ms += HOUR
        assert watched.shard.step(in_flight=[first.action_id]).decisions == []
        done = watched.shard.step(delivery_results=[DeliveryResult("u", first.action_id, outcome, 1, 503)])
        assert [each.decision for each in done.decisions] == [decision]


def test_a_held_action_and_a_candidate_expire() -> None:
    rules = grouped(
        {"marketing": {"within": "1h"}},
        on("held", expires="30m", **NIGHT),
        on("waits", "x", expires="30m", priority=9),
        on("free", group=None, expires="30m", **NIGHT),
        on("late", "x"),
    )
    watched = Watched(rules)
    watched.see("1")
    watched.see("2", 1, "x")
    watched.restore()
    assert watched.pass_time(HOUR) == []
    assert watched.pass_stream(HOUR + 1) == ["late:2"]
    assert sorted(watched.told("expired")) == ["free: expired", "held: expired", "waits: expired"]
    assert watched.counts["actions_expired"] == 3


def test_an_expiry_gives_nothing_back() -> None:
    watched = Watched(grouped({"marketing": ONE_A_DAY}, on("a", actions=HOOK, expires="10m"), on("b", "x")))
    watched.see("1")
    watched.pass_time(HOUR)
    assert watched.told("expired") == ["a: expired"]
    assert watched.see("2", HOUR, "x") == []


# Rule sets


def test_a_rule_that_changes_its_group_takes_its_candidate_with_it() -> None:
    groups = {"marketing": {"within": "2m"}, "news": {"within": "2m"}}
    watched = Watched(grouped(groups, on("a", "x", 1), on("b", "y", 2, group="news"), on("c", "z")))
    watched.see("1", 0, "x")
    watched.see("2", MINUTE, "y")
    moved = grouped(groups, on("a", "x", 5, group="news", version=2), on("b", "y", 2, group="news"), on("c", "z"))
    watched.take(published(1, *moved))
    assert watched.pass_stream(2 * MINUTE) == ["a:1"]
    assert watched.told(*LOSERS) == ["b: outranked by a"]


def test_a_candidate_whose_rule_has_no_group_any_more_goes_out_and_one_without_a_rule_does_not() -> None:
    watched = Watched(grouped({"marketing": {"within": "2m"}}, on("a", "x"), on("b", "y", 2)))
    watched.see("1", 0, "x")
    watched.see("2", 0, "y")
    watched.take(published(1, on("a", "x", group=None, version=2)))
    assert watched.pass_stream(2 * MINUTE) == ["a:1"]
    assert watched.told(*LOSERS) == ["b: dropped"]


def test_a_group_s_memory_goes_by_its_name_and_ends_with_the_group() -> None:
    rules = grouped({"marketing": ONE_A_DAY}, on("a"))
    watched = Watched(rules)
    assert watched.see("1") == ["a:1"]
    watched.take(published(1, *grouped({"marketing": {"cap": {"count": 1, "per": "week"}}}, on("b"))))
    assert watched.see("2", DAY) == []
    watched.take(published(2, on("b", group=None, version=2)))
    assert "groups" not in watched.remembered()
    watched.take(published(3, *grouped({"marketing": ONE_A_DAY}, on("b", version=3))))
    watched.restore()
    assert watched.see("3", 1) == ["b:3"]


def test_a_rule_of_today_that_joins_a_group_keeps_what_is_held_and_what_waits() -> None:
    watched = Watched([on("a", group=None, **NIGHT)])
    watched.see("1")
    watched.take(published(1, *grouped({"marketing": TWO_MINUTES}, on("a", version=2))))
    assert watched.pass_time(HOUR) == []
    assert watched.pass_stream(HOUR + 2 * MINUTE) == ["a:1"]
