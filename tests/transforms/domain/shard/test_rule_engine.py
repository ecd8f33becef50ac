"""docs/rules.md, "How often, when, and in what order", sentence by sentence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, batch, control, event, fetched, filter_set, rule
from transforms.domain.base.due_index import DueIndex
from transforms.domain.events.record import Record
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
# NOW_MS is noon in UTC on Monday, 2024-01-01.
NOON = NOW_MS - NOW_MS % DAY + 12 * HOUR
USER = {"profile": {"timezone": "Europe/Berlin"}, "visit": None, "history": []}
SEQUENCE = {"not_followed_by": 'event.event_name == "checkout"', "within": "30m", "match": "parameters.cart"}


class Told:
    """A shard with one loaded user; ``say`` lets an event happen and tells which rules fire, by event."""

    def __init__(self, *rules: Rule, known: Any = USER, **settings: Any) -> None:
        self.shard = Shard(*rules, ttl_ms=10 * MINUTE, allowed_lateness_ms=10 * SECOND, **settings)
        self.shard.now_ms = NOON
        self.known = known
        self.counts: Counter[str] = Counter()
        self.letters: list[Any] = []
        self.numbers = iter(range(10_000))

    def say(
        self, at_ms: int = 0, name: str = "go", event_id: str = "", received: int | None = None, **fields: Any
    ) -> list[str]:
        """An event at ``at_ms`` after noon, whose record Kafka got at ``received``, by default at the same time."""
        made = event("u", event_id=event_id or f"e{next(self.numbers)}", event_name=name, timestamp=NOON + at_ms)
        record_ms = NOON + (at_ms if received is None else received)
        return self.take(batch(Record(0, 0, record_ms, b"u", orjson.dumps(made | fields))))

    def take(self, one: Any = None, stream_ms: int | None = None) -> list[str]:
        seen = []
        done = self.shard.step(one, stream_ms=stream_ms)
        while True:
            seen += self._see(done)
            if not done.users_to_fetch:
                return seen
            done = self.shard.step(answers=[Answer("u", fetched(self.known))])

    def _see(self, done: StepResult) -> list[str]:
        self.counts += done.counts
        self.letters += done.dead_letters
        return [f"{action.rule}:{orjson.loads(action.body)['event']['event_id']}" for action in done.actions]

    def pass_stream(self, to_ms: int) -> list[str]:
        return self.take(stream_ms=NOON + to_ms)

    def pass_time(self, ms: int) -> list[str]:
        self.shard.now_ms += ms
        return self.take()

    def remembered(self) -> Any:
        return self.shard.inspect("u")["ruleState"]


def test_a_cooldown_silences_until_its_time_is_over() -> None:
    told = Told(rule("r", cooldown="1h"))
    assert told.say(0, event_id="a") == ["r:a"]
    assert told.say(HOUR - 1) == []
    assert told.say(-1) == []
    assert told.say(HOUR, event_id="b") == ["r:b"]
    assert told.counts["rules_cooled_down"] == 2


def test_a_cooldown_is_kept_for_each_value_of_its_key() -> None:
    told = Told(rule("r", cooldown={"time": "1h", "key": "event.parameters.sku"}))
    assert told.say(0, event_id="a", parameters={"sku": "x"}) == ["r:a"]
    assert told.say(1, event_id="b", parameters={"sku": "y"}) == ["r:b"]
    assert told.say(2, parameters={"sku": "x"}) == []
    assert told.say(2, parameters={"sku": "y" * 100}, event_id="c") == ["r:c"]
    assert told.say(3, parameters={"sku": "y" * 100}) == []


def test_a_rolling_cap_holds_whatever_order_events_come_in() -> None:
    told = Told(rule("r", cap={"count": 2, "window": "1h"}))
    assert told.say(0, event_id="a") == ["r:a"]
    assert told.say(30 * MINUTE, event_id="b") == ["r:b"]
    assert told.say(HOUR - 1) == []
    assert told.say(10 * MINUTE) == []
    assert told.say(HOUR, event_id="c") == ["r:c"]
    assert told.counts["rules_capped"] == 2


@pytest.mark.parametrize(
    ("fields", "fired"),
    [
        ({"cap": {"count": 2, "window": "2h"}}, 2),
        ({"cap": {"count": 3, "per": "week"}}, 3),
        ({"cooldown": "1h"}, 1),
        ({"cooldown": {"time": "1h", "key": "event.event_name"}}, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [-20 * HOUR, 0], ids=["as the stream catches up", "the stream is ahead"])
def test_events_of_the_day_before_that_come_at_once_are_stopped(fields: Any, fired: int, stream: int) -> None:
    told = Told(rule("r", **fields))
    outs = []
    for number in range(10):
        outs += told.say(-DAY + number * 2 * HOUR, event_id=f"e{number}", received=number)
        told.pass_stream(stream + number)
        told.shard.restore()
    assert outs == [f"r:e{number}" for number in range(fired)]


def test_a_firing_is_remembered_until_the_later_of_its_times_is_over() -> None:
    told = Told(rule("r", cap={"count": 2, "window": "1h"}))
    told.say(-DAY, event_id="a", received=0)
    told.say(-DAY + 2 * HOUR, event_id="b", received=MINUTE)
    assert told.say(-DAY + 4 * HOUR, received=2 * MINUTE) == []
    told.pass_stream(HOUR + 10 * SECOND)  # the first one is over
    assert told.remembered()["caps"] == [{"rule": "r", "fired_at": [NOON - DAY + 2 * HOUR]}]
    assert told.say(-DAY + 4 * HOUR, event_id="c", received=2 * MINUTE) == ["r:c"]
    assert told.say(-DAY + 6 * HOUR, received=3 * MINUTE) == []
    told.pass_stream(HOUR + 2 * MINUTE + 10 * SECOND)
    assert told.remembered()["caps"] == []


@pytest.mark.parametrize("record_ms", [-1, 0, 946_684_799_999])
def test_a_record_without_a_usable_time_has_the_event_s(record_ms: int) -> None:
    told = Told(rule("r", cooldown="1h"))
    assert told.say(0, event_id="a", received=record_ms - NOON) == ["r:a"]
    assert told.say(HOUR - 1, received=record_ms - NOON) == []
    assert told.say(HOUR, event_id="b", received=record_ms - NOON) == ["r:b"]


def test_a_calendar_cap_begins_anew_at_the_user_s_midnight() -> None:
    told = Told(rule("r", cap={"count": 1, "per": "day"}))
    assert told.say(0, event_id="a") == ["r:a"]
    midnight_in_berlin = 11 * HOUR
    assert told.say(midnight_in_berlin - 1) == []
    assert told.say(midnight_in_berlin, event_id="b") == ["r:b"]
    assert told.say(midnight_in_berlin - 1) == []


@pytest.mark.parametrize(
    ("profile", "midnight", "unknown"),
    [({}, 12 * HOUR, 0), ({"timezone": "Mars/Base"}, 12 * HOUR, 2), ({"timezone": 7}, 12 * HOUR, 2)],
)
def test_who_has_no_time_zone_has_the_default(profile: Any, midnight: int, unknown: int) -> None:
    told = Told(rule("r", cap={"count": 1, "per": "day"}), known=USER | {"profile": profile})
    assert told.say(0, event_id="a") == ["r:a"]
    assert told.say(midnight - 1) == []
    assert told.say(midnight, event_id="b") == ["r:b"]
    assert told.counts["time_zones_unknown"] == unknown


@pytest.mark.parametrize(
    "profile",
    [{"address": {"timezone": "Europe/Berlin"}}, {"address.timezone": "Europe/Berlin", "address": {"timezone": "UTC"}}],
)
def test_the_time_zone_may_be_inside_a_field_of_the_profile(profile: Any) -> None:
    limited = rule("r", cap={"count": 1, "per": "day"}, time_zone={"profile_field": "address.timezone"})
    told = Told(limited, known=USER | {"profile": profile})
    midnight_in_berlin = 11 * HOUR
    assert told.say(0, event_id="a") == ["r:a"]
    assert told.say(midnight_in_berlin - 1) == []
    assert told.say(midnight_in_berlin, event_id="b") == ["r:b"]
    assert told.counts["time_zones_unknown"] == 0


def test_caps_outlive_the_idle_user_and_a_restore_until_the_stream_is_past_them() -> None:
    told = Told(rule("r", cap={"count": 1, "window": "1h"}))
    told.say(0)
    told.pass_time(20 * MINUTE)
    assert told.shard.state.users == {}
    told.shard.restore()
    assert told.say(30 * MINUTE) == []
    told.pass_stream(HOUR + 10 * SECOND - 1)
    assert told.remembered()["caps"] == [{"rule": "r", "fired_at": [NOON]}]
    told.pass_stream(HOUR + 10 * SECOND)
    assert told.remembered()["caps"] == []
    told.pass_time(20 * MINUTE)
    assert told.shard.state.is_empty


def test_another_version_of_the_rule_goes_on_with_its_cap() -> None:
    told = Told(rule("r", cap={"count": 1, "window": "1h"}))
    told.say(0)
    told.shard.filters = filter_set((rule("r", version=2, cap={"count": 2, "window": "1h"}),))
    assert told.say(1, event_id="b") == ["r:b"]
    assert told.say(2) == []


def test_quiet_hours_hold_an_action_as_it_was_decided() -> None:
    quiet = rule("r", quiet_hours={"start": "12:30", "end": "14:00"}, version=3, cap={"count": 1, "window": "1h"})
    told = Told(quiet)
    # It is 13:00 in Berlin.
    assert told.say(0, event_id="a") == []
    assert told.counts["actions_held"] == 1
    assert told.say(1) == []  # the cap counts what is held
    assert told.remembered()["held"] == [{"rule": "r", "action": "debug", "event_id": "a", "until": NOON + HOUR}]
    told.shard.restore()
    told.shard.filters = filter_set((rule("r", version=4),))
    assert told.pass_time(HOUR - 1) == []
    done = told.shard.step(now_ms=NOON + HOUR)
    (action,) = done.actions
    assert (action.rule_version, orjson.loads(action.body)["event"]["event_id"]) == (3, "a")
    assert told.pass_time(HOUR) == []


def test_what_is_held_waits_on_if_it_is_quiet_again() -> None:
    told = Told(rule("r", quiet_hours={"start": "22:00", "end": "08:00"}))
    assert told.say(0, event_id="a") == ["r:a"]
    told.shard.now_ms = NOON + 10 * HOUR
    assert told.say(10 * HOUR, event_id="b") == []
    told.shard.now_ms = NOON + 34 * HOUR  # 23:00 in Berlin, a day later: the job was down
    assert told.pass_time(0) == []
    assert told.pass_time(9 * HOUR) == ["r:b"]


def test_what_is_held_is_dropped_if_its_rule_is_gone() -> None:
    told = Told(rule("r", quiet_hours={"start": "12:30", "end": "14:00"}))
    told.say(0)
    told.shard.filters = filter_set(())
    assert told.pass_time(HOUR) == []
    assert told.counts["held_dropped"] == 1


def test_a_sequence_that_is_not_followed_fires_when_the_stream_is_past_its_end() -> None:
    told = Told(rule("r", 'event.event_name == "add"', sequence=SEQUENCE))
    assert told.say(0, "add", "a", parameters={"cart": 1, "note": "as it was"}) == []
    told.pass_time(20 * MINUTE)  # forgotten, to be loaded again
    assert told.pass_stream(30 * MINUTE + 10 * SECOND - 1) == []
    done = told.shard.step(stream_ms=NOON + 30 * MINUTE + 10 * SECOND)
    assert (list(done.users_to_fetch), done.actions) == (["u"], [])
    (action,) = told.shard.step(answers=[Answer("u", fetched(USER))]).actions
    body = orjson.loads(action.body)
    assert body["event"]["parameters"] == {"cart": 1, "note": "as it was"}
    assert (body["userProfile"], body["currentVisit"], body["eventHistory"]) == (USER["profile"], None, [])
    assert told.pass_stream(HOUR) == []
    assert told.remembered()["sequences"] == []


@pytest.mark.parametrize(
    ("at_ms", "cart", "fires"),
    [
        (0, 1, False),
        (30 * MINUTE, 1.0, False),
        (30 * MINUTE + 1, 1, True),
        (-1, 1, True),
        (1, "1", True),
        (1, None, True),
    ],
)
def test_who_follows_in_time_and_with_the_same_value_ends_it(at_ms: int, cart: Any, fires: bool) -> None:
    told = Told(rule("r", 'event.event_name == "add"', sequence=SEQUENCE))
    told.say(0, "add", "a", parameters={"cart": 1})
    assert told.say(at_ms, "checkout", parameters={"cart": cart}) == []
    assert told.pass_stream(HOUR) == (["r:a"] if fires else [])


def test_followed_by_fires_at_the_event_that_follows_once() -> None:
    sequence = {"followed_by": 'event.event_name == "b"', "within": "1h"}
    told = Told(rule("r", 'event.event_name == "a"', sequence=sequence))
    assert told.say(0, "b") == []
    assert told.say(1, "a") == []
    assert told.say(2, "b", "x") == ["r:x"]
    assert told.say(3, "b") == []
    told.say(4, "a")
    assert told.pass_stream(2 * HOUR) == []
    assert told.remembered()["sequences"] == []
    assert (told.counts["sequences_begun"], told.counts["sequences_followed"]) == (2, 1)


def test_an_event_may_follow_and_begin() -> None:
    told = Told(rule("r", "true", sequence={"followed_by": "true", "within": "1h"}))
    assert [told.say(at, event_id=f"x{at}") for at in range(4)] == [[], ["r:x1"], ["r:x2"], ["r:x3"]]


def test_the_latest_event_begins_it_anew_an_older_one_does_not() -> None:
    told = Told(rule("r", 'event.event_name == "add"', sequence=SEQUENCE))
    told.say(10 * MINUTE, "add", "first", parameters={"cart": 1})
    told.say(0, "add", "older", parameters={"cart": 1})
    told.say(20 * MINUTE, "add", "second", parameters={"cart": 1})
    told.say(51 * MINUTE, "add", "after its end", parameters={"cart": 1})
    assert [one["event_id"] for one in told.remembered()["sequences"]] == ["second", "after its end"]
    assert told.pass_stream(2 * HOUR) == ["r:second", "r:after its end"]


def test_events_that_wait_for_the_user_api_come_before_the_end_of_a_sequence() -> None:
    told = Told(rule("r", 'event.event_name == "add"', sequence=SEQUENCE))
    told.say(0, "add", parameters={"cart": 1})
    told.pass_time(20 * MINUTE)
    bought = event("u", event_name="checkout", timestamp=NOON + 20 * MINUTE, parameters={"cart": 1})
    told.shard.step(batch(bought))
    assert told.shard.step(stream_ms=NOON + HOUR).actions == []
    assert told.shard.step(answers=[Answer("u", fetched(USER))]).actions == []
    assert told.remembered()["sequences"] == []


def test_a_restore_asks_anew_for_a_user_whom_a_sequence_waits_for() -> None:
    told = Told(rule("r", 'event.event_name == "add"', sequence=SEQUENCE))
    told.say(0, "add", "a", parameters={"cart": 1})
    told.pass_time(20 * MINUTE)
    told.shard.step(stream_ms=NOON + HOUR)
    told.shard.restore()
    assert list(told.shard.fetch_started_ms) == ["u"]
    assert len(told.shard.step(answers=[Answer("u", fetched(None))]).actions) == 1


def test_cooldown_and_cap_are_of_the_time_of_the_end() -> None:
    told = Told(rule("r", 'event.event_name == "add"', sequence=SEQUENCE, cooldown="1h"))
    told.say(0, "add", "a", parameters={"cart": 1})
    told.say(29 * MINUTE, "add", "b", parameters={"cart": 2})
    told.say(HOUR, "add", "c", parameters={"cart": 3})
    assert told.pass_stream(3 * HOUR) == ["r:a", "r:c"]


def test_the_record_time_of_an_end_is_that_of_the_beginning_if_it_is_later() -> None:
    fields = {"sequence": SEQUENCE, "cooldown": "1h"}
    told = Told(rule("r", 'event.event_name == "add"', **fields))
    for number in range(3):  # a phone that was offline: each ends hours before the next begins
        told.say(-DAY + number * 3 * HOUR, "add", f"e{number}", received=number, parameters={"cart": number})
        told.shard.restore()
    assert told.pass_stream(0) == ["r:e0"]
    told.say(30 * MINUTE, "add", "e3", parameters={"cart": 3})
    assert told.pass_stream(2 * HOUR) == ["r:e3"]  # an hour and ten seconds after Kafka got the first


@pytest.mark.parametrize("now", [rule("other"), rule("r"), rule("r", sequence={"followed_by": "true", "within": "1h"})])
def test_a_sequence_whose_rule_is_gone_ends_silently(now: Rule) -> None:
    told = Told(rule("r", 'event.event_name == "add"', sequence=SEQUENCE))
    told.say(0, "add", parameters={"cart": 1})
    told.pass_time(20 * MINUTE)
    told.shard.filters = filter_set((now,))
    assert list(told.shard.step(stream_ms=NOON + HOUR).users_to_fetch) == []
    assert told.remembered()["sequences"] == []


@pytest.mark.parametrize(("policy", "fires"), [("run", True), ("skip", False)])
def test_without_a_profile_a_sequence_is_passed_over_as_an_event_is(policy: str, fires: bool) -> None:
    sequence = {"not_followed_by": "false", "within": "1h"}
    told = Told(rule("r", 'event.event_name == "add"', sequence=sequence, on_missing_profile=policy))
    told.say(0, "add", "a")
    told.pass_time(20 * MINUTE)
    told.known = "unavailable"
    assert told.pass_stream(2 * HOUR) == (["r:a"] if fires else [])


def test_what_a_rule_passes_over_still_ends_its_sequence() -> None:
    told = Told(rule("r", 'event.event_name == "add"', sequence=SEQUENCE, on_missing_profile="skip"))
    told.say(0, "add", parameters={"cart": 1})
    told.pass_time(20 * MINUTE)
    told.known = "unavailable"
    told.say(21 * MINUTE, "checkout", parameters={"cart": 1})
    assert told.remembered()["sequences"] == []


def test_too_much_of_a_user_is_a_dead_letter() -> None:
    begins = rule("begins", 'event.event_name == "add"', sequence=SEQUENCE)
    holds = rule("holds", 'event.event_name == "go"', quiet_hours={"start": "00:00", "end": "23:59"})
    told = Told(begins, holds)
    for number in range(101):
        told.say(number, "add", parameters={"cart": number})
    for number in range(101):
        told.say(number, "go")
    assert [(letter.reason, letter.rule) for letter in told.letters] == [
        ("rule_state_full", "begins"),
        ("rule_state_full", "holds"),
    ]
    assert "100 sequences of this user are open, allowed are 100 and 1000000 bytes" in told.letters[0].detail
    assert (len(told.remembered()["sequences"]), len(told.remembered()["held"])) == (100, 100)
    assert (told.counts["sequences_refused"], told.counts["actions_refused"]) == (1, 1)


def test_of_too_many_cooldowns_the_one_that_ends_first_goes() -> None:
    told = Told(rule("r", cooldown={"time": "1h", "key": "event.parameters.n"}), history_size=1)
    for number in range(1001):
        told.say(number, parameters={"n": number})
    keys = {one["key"] for one in told.remembered()["cooldowns"]}
    assert len(keys) == 1000
    assert "n:0" not in keys
    assert told.counts["cooldowns_cut"] == 1


def test_whoever_is_forgotten_is_forgotten_by_rules() -> None:
    told = Told(
        rule("r", 'event.event_name == "add"', sequence=SEQUENCE),
        rule("c", cap={"count": 1, "window": "1h"}),
        rule("h", quiet_hours={"start": "00:00", "end": "23:59"}),
    )
    told.say(0, "add", parameters={"cart": 1})
    told.pass_time(20 * MINUTE)
    (erasure,) = told.shard.step(control({"forget": "u"})).erasures
    assert erasure.found
    assert told.shard.state.is_empty
    assert told.remembered() == {"cooldowns": [], "caps": [], "sequences": [], "held": []}
    assert told.shard.state.rule_states.stream_due.next_ms() is None
    assert all(bag.stored == [] for bag in told.shard.bags)


def test_an_agenda_knows_who_is_due() -> None:
    agenda = DueIndex()
    for number in range(200):
        agenda.set(f"n{number % 10}", number)
    agenda.set("n0", 500)
    agenda.set("n1", None)
    assert (agenda.next_ms(), agenda.until(193)) == (192, ["n2", "n3"])
    assert agenda.until(193) == ["n2", "n3"]
    agenda.set("n2", 192)
    assert agenda.until(1000)[-1] == "n0"


# Active, and quiet hours with days; NOON is Monday 13:00 in Berlin.


@pytest.mark.parametrize(
    ("active", "offsets", "fires"),
    [
        ({"from": "13:00", "to": "14:00"}, [-1, 0, HOUR - 1, HOUR], [0, HOUR - 1]),
        (
            {"days": ["tue", "mon"]},
            [-13 * HOUR - 1, -13 * HOUR, 2 * DAY - 13 * HOUR - 1, 2 * DAY],
            [-46_800_000, 125_999_999],
        ),
        (
            {"days": ["mon"], "from": "22:00", "to": "02:00"},
            [-DAY + 9 * HOUR, 9 * HOUR, 13 * HOUR - 1, 13 * HOUR],
            [9 * HOUR, 13 * HOUR - 1],
        ),
    ],
)
def test_a_rule_is_active_at_its_days_and_hours_of_the_users_day(
    active: Any, offsets: list[int], fires: list[int]
) -> None:
    told = Told(rule("r", active=active))
    told.shard.now_ms = NOON + 3 * DAY
    assert [at for at in offsets if told.say(at, event_id=f"e{at}")] == fires
    assert told.counts["rules_inactive"] == len(offsets) - len(fires)


def test_a_sequence_begins_only_while_its_rule_is_active_and_is_followed_at_any_time() -> None:
    follows = {"followed_by": 'event.event_name == "buy"', "within": "3h"}
    told = Told(rule("r", 'event.event_name == "go"', active={"to": "14:00"}, sequence=follows))
    assert told.say(HOUR, "go") == []
    assert told.say(HOUR, "buy") == []
    assert told.say(HOUR - 1, "go") == []
    assert told.say(2 * HOUR, "buy", event_id="b") == ["r:b"]
    assert told.counts["rules_inactive"] == 1


def test_quiet_hours_that_drop_leave_cooldown_and_cap_as_they_were() -> None:
    quiet = {"start": "13:00", "end": "14:00", "mode": "drop"}
    told = Told(rule("r", quiet_hours=quiet, cap={"count": 1, "per": "day"}, cooldown="1d"))
    assert told.say(0) == []
    assert told.counts["rules_dropped"] == 1
    assert told.remembered() == {"cooldowns": [], "caps": [], "sequences": [], "held": []}
    assert told.pass_time(HOUR) == []
    assert told.say(HOUR, event_id="b") == ["r:b"]


def test_quiet_hours_begin_only_on_their_days() -> None:
    told = Told(rule("r", quiet_hours={"start": "22:00", "end": "06:00", "days": ["mon", "tue"]}))
    fired_at = []
    for hour in range(0, 96, 2):  # from Monday, 13:00 in Berlin
        if told.pass_time(0 if hour == 0 else 2 * HOUR) or told.say(hour * HOUR, event_id=f"e{hour}"):
            fired_at.append((13 + hour) % 24 + 24 * ((13 + hour) // 24))
    held = [hour for hour in range(13, 109, 2) if hour not in fired_at]
    assert held == [23, 25, 27, 29, 47, 49, 51, 53]


def test_quiet_weekends_end_on_monday() -> None:
    told = Told(rule("r", quiet_hours={"start": "00:00", "end": "24:00", "days": ["sat", "sun"]}))
    told.pass_time(5 * DAY)
    assert told.say(5 * DAY, event_id="a") == []
    assert told.remembered()["held"][0]["until"] == NOON + 6 * DAY + 11 * HOUR
    assert told.pass_time(DAY + 11 * HOUR - 1) == []
    assert told.pass_time(1) == ["r:a"]


# Sequences of several steps

PAID = {"followed_by": 'event.event_name == "pay"', "within": "1h"}
NOT_RATED = {"not_followed_by": 'event.event_name == "rate"', "within": "5h"}
GO = 'event.event_name == "go"'


def test_x_then_y_then_no_z() -> None:
    told = Told(rule("r", GO, sequence={"steps": [PAID, NOT_RATED]}))
    told.say(0, "go", event_id="x")
    told.say(30 * MINUTE, "rate")  # not its turn
    told.say(59 * MINUTE, "pay", event_id="y")
    told.shard.restore()
    assert told.remembered()["sequences"] == [
        {"rule": "r", "event_id": "x", "begun_at": NOON + 59 * MINUTE, "ends_at": NOON + 5 * HOUR + 59 * MINUTE}
    ]
    assert told.pass_stream(5 * HOUR + 59 * MINUTE + 10 * SECOND - 1) == []
    told.shard.restore()
    assert told.pass_stream(5 * HOUR + 59 * MINUTE + 10 * SECOND) == ["r:x"]
    assert told.counts["sequences_followed"] == told.counts["sequences_timed_out"] == 1


@pytest.mark.parametrize(
    ("events", "fires"),
    [
        ([(0, "go", "x")], []),  # no Y: ends silently
        ([(0, "go", "x"), (61 * MINUTE, "pay", "y")], []),  # Y too late
        ([(0, "go", "x"), (1, "pay", "y"), (2, "rate", "z")], []),
        ([(0, "go", "x"), (1, "pay", "y"), (5 * HOUR + 1, "rate", "z")], []),  # just in time
        ([(0, "go", "x"), (1, "pay", "y"), (5 * HOUR + 2, "rate", "z")], ["r:x"]),
        ([(0, "go", "x"), (1, "pay", "y"), (2, "go", "x2")], ["r:x"]),  # another X does not undo Y
        ([(0, "go", "x"), (2, "go", "x2"), (3, "pay", "y")], ["r:x2"]),  # the later X counts
        ([(0, "go", "x"), (1, "pay", "y"), (2, "go", "x2"), (3, "pay", "y2")], ["r:x2"]),  # and the later Y
        ([(0, "pay", "y"), (1, "go", "x")], []),
        ([(5, "go", "x"), (4, "pay", "y")], []),  # Y was before X
    ],
)
def test_when_a_sequence_of_two_steps_fires(events: Any, fires: list[str]) -> None:
    told = Told(rule("r", GO, sequence={"steps": [PAID, NOT_RATED]}))
    outs = []
    for at_ms, name, event_id in events:
        outs += told.say(at_ms, name, event_id=event_id)
        told.shard.restore()
    assert outs + told.pass_stream(3 * DAY) == fires
    assert told.remembered()["sequences"] == []
    assert told.counts["sequences_dropped"] == 0


def test_steps_that_are_all_followed_fire_at_the_last_event() -> None:
    steps = [{"followed_by": f'event.event_name == "{name}"', "within": "10m"} for name in "abc"]
    told = Told(rule("r", GO, sequence={"steps": steps, "match": "parameters.n"}))
    for minute, name in [(0, "go"), (1, "b"), (9, "a"), (10, "c"), (18, "b")]:
        assert told.say(minute * MINUTE, name, parameters={"n": 1}) == []
        assert told.say(minute * MINUTE, name, parameters={"n": minute}) == []
    assert told.say(28 * MINUTE, "c", event_id="end", parameters={"n": 1}) == ["r:end"]


def test_one_event_ends_one_step_of_a_sequence() -> None:
    step = {"followed_by": GO, "within": "1h"}
    told = Told(rule("r", GO, sequence={"steps": [step, step]}))
    assert [told.say(number, "go", event_id=f"e{number}") for number in range(5)] == [
        [],
        [],
        ["r:e2"],
        ["r:e3"],
        ["r:e4"],
    ]


def test_a_field_of_any_item_of_a_list_ends_a_sequence() -> None:
    match = {"begun": "parameters.sku", "followed": "parameters.items[].sku"}
    told = Told(rule("r", GO, sequence=SEQUENCE | {"match": match}))
    for sku in ("a", "b", 3):
        told.say(0, "go", event_id=f"{sku}", parameters={"sku": sku})
    for items in ([{"sku": "c"}, {}, 7, {"sku": None}, {"sku": 3.0}, {"sku": "a"}], "none", [], None, {"sku": "b"}):
        told.say(MINUTE, "checkout", parameters={"items": items})
    told.say(MINUTE, "checkout", parameters={"sku": "b"})
    assert told.pass_stream(DAY) == ["r:b"]


def test_a_sequence_goes_on_when_its_rule_gets_more_steps_and_ends_when_its_step_is_gone() -> None:
    short, long = {"followed_by": PAID["followed_by"], "within": "1h"}, {"steps": [PAID, PAID]}
    told = Told(rule("r", GO, sequence=short))
    told.say(0, "go", event_id="x")
    told.shard.filters = filter_set((rule("r", GO, sequence=long, version=2),))
    assert told.say(1, "pay") == []
    assert told.say(2, "pay", event_id="y") == ["r:y"]
    told.say(3, "go", event_id="x2")
    told.say(4, "pay")
    told.shard.filters = filter_set((rule("r", GO, sequence=short, version=3),))
    assert told.say(5, "pay") == []
    assert told.pass_stream(DAY) == []
    assert told.counts["sequences_dropped"] == 1


@pytest.mark.parametrize("steps", [[PAID], [PAID, PAID], [PAID, NOT_RATED]], ids=len)
def test_a_body_has_the_event_that_began_the_sequence(steps: Any) -> None:
    body = {"first": "${begun.parameters.n|none}", "event": "${event.event_id}", "id": "${begun.event_id}"}
    sequence = steps[0] if len(steps) == 1 else {"steps": steps}
    told = Told(rule("r", GO, sequence=sequence, actions=[{"type": "kafka", "body": body}]))
    sent = []
    told._see = lambda done: [sent.append(orjson.loads(action.body)) for action in done.actions]  # type: ignore
    told.say(0, "go", event_id="x", parameters={"n": 7})
    told.shard.restore()
    for number, _ in enumerate(steps):
        told.say(1 + number, "pay", event_id=f"y{number}")
    told.pass_stream(DAY)
    last = "x" if "not_followed_by" in steps[-1] else f"y{len(steps) - 1}"
    assert sent == [{"first": 7, "event": last, "id": "x"}]
