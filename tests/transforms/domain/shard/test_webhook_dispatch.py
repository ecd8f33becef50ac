"""docs/delivery.md, sentence by sentence."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest

from tests.builders import Shard, batch, control, event, fetched, rule
from transforms.domain.events.dead_letter import DeadLetter
from transforms.domain.shard.step_input import Answer
from transforms.domain.webhooks.delivery_queue import DELAYED, DELIVERED, GONE, REFUSED, RETRY, Delivery, DeliveryResult
from transforms.domain.webhooks.retries import RetrySchedule
from transforms.runtime.outbox import Outbox

SECOND, HOUR, DAY = 1000, 3_600_000, 86_400_000
WEBHOOK = {"type": "webhook", "destination": "crm"}


def webhook(name: str = "r", **action: Any) -> Any:
    return rule(name, actions=[WEBHOOK | action])


class Mailed:
    """A shard with a loaded user ``u`` and an outbox that takes what is due."""

    def __init__(self, *rules: Any, destinations: tuple[str, ...] = ("crm", "ads"), **settings: Any) -> None:
        schedules = {name: RetrySchedule() for name in destinations}
        self.shard = Shard(*(rules or (webhook(),)), destinations=schedules, ttl_ms=600_000, **settings)
        self.letters: list[DeadLetter] = []
        self.counts: Counter[str] = Counter()
        self.outbox = Outbox({})
        self.load("u")

    def load(self, user_id: str) -> None:
        rules, self.shard.filters.rules = self.shard.filters.rules, ()
        self.take(answers=[Answer(user_id, fetched(None))])
        self.shard.filters.rules = rules

    def take(self, *arguments: Any, **named: Any) -> None:
        done = self.shard.step(*arguments, **named)
        self.counts += done.counts
        self.letters += done.dead_letters
        self.outbox.changed(self.shard.view.deliveries, done.users_with_new_deliveries)

    def say(self, event_id: str, user_id: str = "u", **fields: Any) -> None:
        self.take(batch(event(user_id, event_id=event_id, **fields)))
        if user_id in self.shard.view.parked:
            self.take(answers=[Answer(user_id, fetched(None))])

    def collect(self, ms: int = 0) -> list[Delivery]:
        """What a worker hands its pool after so much time."""
        self.shard.now_ms += ms
        due = self.outbox.due(self.shard.view.deliveries, self.shard.now_ms)
        for user_id, one in due:
            self.outbox.sent(self.shard.view.deliveries, user_id, one.action_id)
        return [one for _, one in due]

    def end(self, delivery: Delivery, ended: str, **came_to: Any) -> None:
        user_id = self.outbox.finished(delivery.action_id)
        self.take(tries=[DeliveryResult(user_id, delivery.action_id, ended, **came_to)])

    def waiting(self) -> list[str]:
        return [one["event_id"] for one in self.shard.inspect("u")["deliveries"]]


def names(deliveries: list[Delivery]) -> list[str]:
    return [f"{one.destination}:{one.event_id}" for one in deliveries]


def test_a_webhook_is_journaled_and_leaves_when_it_is_delivered() -> None:
    mailed = Mailed()
    mailed.say("a")
    mailed.shard.restore()
    assert mailed.waiting() == ["a"]
    (one,) = mailed.collect()
    body = orjson.loads(one.body)
    assert set(body) == {"event", "userProfile", "currentVisit"}
    mailed.end(one, DELIVERED, status=200)
    assert (mailed.waiting(), mailed.letters, mailed.shard.view.deliveries) == ([], [], {})
    assert mailed.counts["deliveries_delivered"] == 1


def test_history_is_in_the_body_only_if_it_is_asked_for() -> None:
    mailed = Mailed(webhook(history=True))
    mailed.say("a")
    (one,) = mailed.collect()
    assert orjson.loads(one.body)["eventHistory"] == []


def test_a_body_of_its_own() -> None:
    template = {"to": "${event.user_id}", "id": "${action.id}", "rule": "${action.rule} ${action.version}"}
    mailed = Mailed(webhook(body=template))
    mailed.say("a")
    (one,) = mailed.collect()
    assert orjson.loads(one.body) == {"to": "u", "id": one.action_id, "rule": "r 1"}


def test_a_user_s_webhooks_wait_for_each_other_and_for_nobody_else() -> None:
    mailed = Mailed(rule("r", actions=[WEBHOOK, WEBHOOK | {"name": "ad", "destination": "ads"}]))
    mailed.say("a")
    mailed.say("b")
    mailed.say("x", "other")
    first = mailed.collect()
    assert sorted(names(first)) == ["ads:a", "ads:x", "crm:a", "crm:x"]
    assert mailed.collect() == []
    (crm,) = [one for one in first if names([one]) == ["crm:a"]]
    mailed.end(crm, DELIVERED)
    assert names(mailed.collect()) == ["crm:b"]


def test_what_failed_for_now_is_tried_again_on_schedule_and_then_given_up() -> None:
    mailed = Mailed()
    mailed.say("a")
    (one,) = mailed.collect()
    began_ms, pauses, tries = mailed.shard.now_ms, [], 0
    while not mailed.letters:
        tries += 1
        mailed.end(one, RETRY, attempts=3, status=503, message="HTTP 503: busy", chance=1.0)
        due_ms = mailed.outbox.next_ms()
        if due_ms is None:
            break
        pauses.append(due_ms - mailed.shard.now_ms)
        assert mailed.collect(due_ms - mailed.shard.now_ms - 1) == []
        mailed.shard.restore()
        mailed.outbox = Outbox(mailed.shard.view.deliveries)
        (one,) = mailed.collect(1)
    assert pauses[:4] == [10 * SECOND, 20 * SECOND, 40 * SECOND, 80 * SECOND]
    assert max(pauses) == 6 * HOUR
    assert 3 * DAY - 6 * HOUR <= mailed.shard.now_ms - began_ms <= 3 * DAY
    (letter,) = mailed.letters
    assert letter.action is not None
    assert (letter.reason, letter.rule) == ("undelivered", "r")
    assert letter.detail == f"after {3 * tries} attempts: HTTP 503: busy"
    shown = orjson.loads(letter.to_json())["action"]
    assert (shown["destination"], shown["event_id"], shown["attempts"], shown["status"]) == ("crm", "a", 3 * tries, 503)
    assert mailed.waiting() == []


def test_retry_after_comes_on_top() -> None:
    mailed = Mailed()
    mailed.say("a")
    mailed.end(mailed.collect()[0], RETRY, retry_after_s=100.0, chance=0.5)
    assert mailed.collect(104_999) == []
    assert len(mailed.collect(1)) == 1


@pytest.mark.parametrize("ended", [REFUSED, GONE])
def test_what_will_not_get_better_is_a_dead_letter_at_once(ended: str) -> None:
    mailed = Mailed()
    mailed.say("a")
    mailed.say("b")
    mailed.end(mailed.collect()[0], ended, status=400, message="HTTP 400")
    assert [letter.detail for letter in mailed.letters] == ["after 1 attempts: HTTP 400"]
    assert names(mailed.collect()) == ["crm:b"]


def test_what_the_pool_puts_off_is_no_failure() -> None:
    mailed = Mailed()
    mailed.say("a")
    mailed.end(mailed.collect()[0], DELAYED, attempts=0, retry_after_s=2.0)
    assert mailed.collect(1999) == []
    (one,) = mailed.collect(1)
    assert (one.failures, one.attempts, mailed.counts["deliveries_delayed"]) == (0, 0, 1)


def test_what_is_put_off_for_ever_is_given_up_as_well() -> None:
    mailed = Mailed()
    mailed.say("a")
    one = mailed.collect(3 * DAY - 1000)[0]
    mailed.end(one, DELAYED, attempts=0, retry_after_s=2.0, message="breaker open")
    assert [letter.detail for letter in mailed.letters] == ["after 0 attempts: breaker open"]


@pytest.mark.parametrize(
    ("bodies", "least"), [({"size": 1}, 100), ({"size": 9000}, 90)], ids=["one hundred", "a megabyte"]
)
def test_too_many_for_one_destination_are_dead_letters(bodies: dict[str, int], least: int) -> None:
    mailed = Mailed()
    for number in range(120):
        mailed.say(f"e{number}", note="x" * bodies["size"])
    kept = len(mailed.waiting())
    assert least <= kept <= 100
    assert {letter.reason for letter in mailed.letters} == {"delivery_queue_full"}
    assert len(mailed.letters) == 120 - kept


def test_a_body_that_is_too_large_is_a_dead_letter() -> None:
    mailed = Mailed(webhook(body={"a": ["${event.note}"] * 60}))
    mailed.say("a", note="x" * 9000)
    assert [letter.reason for letter in mailed.letters] == ["action_too_large"]


@pytest.mark.parametrize("size", [900_000, 900_001])
def test_a_kafka_action_that_kafka_would_not_take_is_a_dead_letter(size: int) -> None:
    kafka = rule("r", actions=[{"type": "kafka", "body": {"a": "${event.note}"}}])
    mailed = Mailed(kafka, max_event_bytes=2_000_000)
    mailed.say("a", note="x" * (size - len('{"a":""}')))
    letters = [(letter.reason, letter.detail, letter.rule, letter.stage, letter.action) for letter in mailed.letters]
    detail = "action 'kafka': 900001 bytes, allowed are 900000"
    assert letters == ([("kafka_action_too_large", detail, "r", "rule", None)] if size > 900_000 else [])
    assert mailed.counts["actions"] == (size <= 900_000)
    assert mailed.counts["events_handled"] == 1


def test_a_destination_that_is_not_there_is_a_dead_letter() -> None:
    mailed = Mailed(destinations=("ads",))
    mailed.say("a")
    assert [letter.reason for letter in mailed.letters] == ["destination_unknown"]
    assert mailed.collect() == []


def test_webhooks_outlive_the_idle_user_and_not_the_forgotten_one() -> None:
    mailed = Mailed()
    mailed.say("a")
    (one,) = mailed.collect(HOUR)
    mailed.take()
    assert (mailed.shard.view.users, mailed.waiting()) == ({}, ["a"])
    mailed.take(control({"forget": "u"}))
    assert mailed.shard.view.is_empty
    assert mailed.counts["deliveries_forgotten"] == 1
    mailed.end(one, RETRY)
    assert mailed.shard.view.is_empty


def test_what_is_held_over_night_goes_to_its_destination() -> None:
    mailed = Mailed(rule("r", actions=[WEBHOOK], quiet_hours={"start": "00:00", "end": "23:59"}))
    mailed.say("a")
    assert mailed.collect() == []
    mailed.shard.now_ms += DAY - 60 * SECOND
    mailed.take()
    assert names(mailed.collect()) == ["crm:a"]


def switch(destination: str, enabled: bool) -> Any:
    return control({"destination": destination, "enabled": enabled})


def test_a_disabled_destination_gets_nothing_until_it_is_enabled() -> None:
    mailed = Mailed(rule("r", actions=[WEBHOOK, WEBHOOK | {"name": "ad", "destination": "ads"}]))
    mailed.say("a")
    (crm,) = [one for one in mailed.collect() if one.destination == "crm"]
    mailed.take(switch("crm", False))
    mailed.shard.journal.rewrite(mailed.shard.now_ms)
    mailed.shard.restore()
    mailed.say("b")
    assert [(one.reason, one.action and one.action.event_id) for one in mailed.letters] == [
        ("destination_disabled", "a"),
        ("destination_disabled", "b"),
    ]
    mailed.end(crm, DELIVERED)  # was under way
    mailed.take(switch("crm", True))
    mailed.say("c")
    assert names(mailed.collect()) == ["crm:c"]
    assert sorted(mailed.waiting()) == ["a", "b", "c", "c"]
    assert (mailed.counts["destinations_disabled"], mailed.counts["destinations_enabled"]) == (1, 1)


def test_a_shard_without_users_remembers_what_is_disabled() -> None:
    mailed = Mailed()
    mailed.take(control({"forget": "u"}))
    mailed.take(switch("crm", False))
    assert not mailed.shard.view.is_empty
    mailed.shard.restore()
    assert list(mailed.shard.view.disabled) == ["crm"]
    mailed.take(switch("crm", True))
    assert list(mailed.shard.view.disabled) == []


@pytest.mark.parametrize("enabled", ["false", 0, None])
def test_a_switch_that_is_none_is_a_dead_letter(enabled: Any) -> None:
    mailed = Mailed()
    done = mailed.shard.step(control({"destination": "crm", "enabled": enabled}))
    done.include_shared_dead_letters()
    assert [one.reason for one in done.dead_letters] == ["bad_control_record"]


def test_a_410_is_told() -> None:
    mailed = Mailed()
    mailed.say("a")
    (one,) = mailed.collect()
    user_id = mailed.outbox.finished(one.action_id)
    done = mailed.shard.step(tries=[DeliveryResult(user_id, one.action_id, GONE, status=410, message="HTTP 410")])
    assert done.gone_destinations == ["crm"]
