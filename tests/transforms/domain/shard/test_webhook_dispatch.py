"""docs/delivery.md, sentence by sentence."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import orjson
import pytest

from tests.builders import Shard, batch, control, event, fetched, rule
from transforms.domain.events.dead_letter import DeadLetter
from transforms.domain.shard.decisions import Decision
from transforms.domain.shard.step_input import Answer
from transforms.domain.webhooks.delivery_queue import DELAYED, DELIVERED, GONE, REFUSED, RETRY, Delivery, DeliveryResult
from transforms.domain.webhooks.retries import RetrySchedule
from transforms.runtime.outbox import Outbox

SECOND, HOUR, DAY = 1000, 3_600_000, 86_400_000
WEBHOOK = {"type": "webhook", "destination": "crm"}


def webhook(name: str = "r", **action: Any) -> Any:
    return rule(name, actions=[WEBHOOK | action])


class WebhookShard:
    """A shard with a loaded user ``u`` and an outbox that takes what is due."""

    def __init__(self, *rules: Any, destinations: tuple[str, ...] = ("crm", "ads"), **settings: Any) -> None:
        schedules = {name: RetrySchedule() for name in destinations}
        self.shard = Shard(*(rules or (webhook(),)), destinations=schedules, ttl_ms=600_000, **settings)
        self.letters: list[DeadLetter] = []
        self.decisions: list[Decision] = []
        self.counts: Counter[str] = Counter()
        self.outbox = Outbox({})
        self.load("u")

    def load(self, user_id: str) -> None:
        rules, self.shard.filters.rules = self.shard.filters.rules, ()
        self.step(answers=[Answer(user_id, fetched(None))])
        self.shard.filters.rules = rules

    def step(self, *arguments: Any, **named: Any) -> None:
        done = self.shard.step(*arguments, **named)
        self.counts += done.counts
        self.letters += done.dead_letters
        self.decisions += done.decisions
        self.outbox.changed(self.shard.state.deliveries, done.users_with_new_deliveries)

    def send_event(self, event_id: str, user_id: str = "u", **fields: Any) -> None:
        self.step(batch(event(user_id, event_id=event_id, **fields)))
        if user_id in self.shard.state.parked:
            self.step(answers=[Answer(user_id, fetched(None))])

    def start_due(self, ms: int = 0) -> list[Delivery]:
        """What a worker hands its pool after so much time."""
        self.shard.now_ms += ms
        due = self.outbox.due(self.shard.state.deliveries, self.shard.now_ms)
        for user_id, one in due:
            self.outbox.sent(self.shard.state.deliveries, user_id, one.action_id)
        return [one for _, one in due]

    def end(self, delivery: Delivery, outcome: str, **fields: Any) -> None:
        user_id = self.outbox.in_flight.pop(delivery.action_id)
        self.step(delivery_results=[DeliveryResult(user_id, delivery.action_id, outcome, **fields)])

    def waiting(self) -> list[str]:
        return [delivery["event_id"] for delivery in self.shard.inspect("u")["deliveries"]]


def names(deliveries: list[Delivery]) -> list[str]:
    return [f"{delivery.destination}:{delivery.event_id}" for delivery in deliveries]


def test_a_webhook_is_journaled_and_leaves_when_it_is_delivered() -> None:
    webhooks = WebhookShard()
    webhooks.send_event("a")
    webhooks.shard.restore()
    assert webhooks.waiting() == ["a"]
    (one,) = webhooks.start_due()
    body = orjson.loads(one.body)
    assert set(body) == {"event", "userProfile", "currentVisit"}
    webhooks.end(one, DELIVERED, status=200)
    assert (webhooks.waiting(), webhooks.letters, webhooks.shard.state.deliveries) == ([], [], {})
    assert webhooks.counts["deliveries_delivered"] == 1


def test_history_is_in_the_body_only_if_it_is_asked_for() -> None:
    webhooks = WebhookShard(webhook(history=True))
    webhooks.send_event("a")
    (one,) = webhooks.start_due()
    assert orjson.loads(one.body)["eventHistory"] == []


def test_a_body_of_its_own() -> None:
    template = {"to": "${event.user_id}", "id": "${action.id}", "rule": "${action.rule} ${action.version}"}
    webhooks = WebhookShard(webhook(body=template))
    webhooks.send_event("a")
    (one,) = webhooks.start_due()
    assert orjson.loads(one.body) == {"to": "u", "id": one.action_id, "rule": "r 1"}


def test_a_user_s_webhooks_wait_for_each_other_and_for_nobody_else() -> None:
    webhooks = WebhookShard(rule("r", actions=[WEBHOOK, WEBHOOK | {"name": "ad", "destination": "ads"}]))
    webhooks.send_event("a")
    webhooks.send_event("b")
    webhooks.send_event("x", "other")
    first = webhooks.start_due()
    assert sorted(names(first)) == ["ads:a", "ads:x", "crm:a", "crm:x"]
    assert webhooks.start_due() == []
    (crm,) = [delivery for delivery in first if names([delivery]) == ["crm:a"]]
    webhooks.end(crm, DELIVERED)
    assert names(webhooks.start_due()) == ["crm:b"]


def test_what_failed_for_now_is_tried_again_on_schedule_and_then_given_up() -> None:
    webhooks = WebhookShard()
    webhooks.send_event("a")
    (one,) = webhooks.start_due()
    began_ms, pauses, tries = webhooks.shard.now_ms, [], 0
    while not webhooks.letters:
        tries += 1
        webhooks.end(one, RETRY, attempts=3, status=503, message="HTTP 503: busy", chance=1.0)
        due_ms = webhooks.outbox.next_ms()
        if due_ms is None:
            break
        pauses.append(due_ms - webhooks.shard.now_ms)
        assert webhooks.start_due(due_ms - webhooks.shard.now_ms - 1) == []
        webhooks.shard.restore()
        webhooks.outbox = Outbox(webhooks.shard.state.deliveries)
        (one,) = webhooks.start_due(1)
    assert pauses[:4] == [10 * SECOND, 20 * SECOND, 40 * SECOND, 80 * SECOND]
    assert max(pauses) == 6 * HOUR
    assert 3 * DAY - 6 * HOUR <= webhooks.shard.now_ms - began_ms <= 3 * DAY
    (letter,) = webhooks.letters
    assert letter.action is not None
    assert (letter.reason, letter.rule) == ("undelivered", "r")
    assert letter.detail == f"after {3 * tries} attempts: HTTP 503: busy"
    shown = orjson.loads(letter.to_json())["action"]
    assert (shown["destination"], shown["event_id"], shown["attempts"], shown["status"]) == ("crm", "a", 3 * tries, 503)
    assert webhooks.waiting() == []


def test_retry_after_comes_on_top() -> None:
    webhooks = WebhookShard()
    webhooks.send_event("a")
    webhooks.end(webhooks.start_due()[0], RETRY, retry_after_s=100.0, chance=0.5)
    assert webhooks.start_due(104_999) == []
    assert len(webhooks.start_due(1)) == 1


@pytest.mark.parametrize("outcome", [REFUSED, GONE])
def test_what_will_not_get_better_is_a_dead_letter_at_once(outcome: str) -> None:
    webhooks = WebhookShard()
    webhooks.send_event("a")
    webhooks.send_event("b")
    webhooks.end(webhooks.start_due()[0], outcome, status=400, message="HTTP 400")
    assert [letter.detail for letter in webhooks.letters] == ["after 1 attempts: HTTP 400"]
    assert names(webhooks.start_due()) == ["crm:b"]


def test_what_the_pool_puts_off_is_no_failure() -> None:
    webhooks = WebhookShard()
    webhooks.send_event("a")
    webhooks.end(webhooks.start_due()[0], DELAYED, attempts=0, retry_after_s=2.0)
    assert webhooks.start_due(1999) == []
    (one,) = webhooks.start_due(1)
    assert (one.failures, one.attempts, webhooks.counts["deliveries_delayed"]) == (0, 0, 1)


def test_what_is_put_off_for_ever_is_given_up_as_well() -> None:
    webhooks = WebhookShard()
    webhooks.send_event("a")
    one = webhooks.start_due(3 * DAY - 1000)[0]
    webhooks.end(one, DELAYED, attempts=0, retry_after_s=2.0, message="breaker open")
    assert [letter.detail for letter in webhooks.letters] == ["after 0 attempts: breaker open"]


@pytest.mark.parametrize(
    ("bodies", "least"), [({"size": 1}, 100), ({"size": 9000}, 90)], ids=["one hundred", "a megabyte"]
)
def test_too_many_for_one_destination_are_dead_letters(bodies: dict[str, int], least: int) -> None:
    webhooks = WebhookShard()
    for number in range(120):
        webhooks.send_event(f"e{number}", note="x" * bodies["size"])
    kept = len(webhooks.waiting())
    assert least <= kept <= 100
    assert {letter.reason for letter in webhooks.letters} == {"delivery_queue_full"}
    assert len(webhooks.letters) == 120 - kept


def test_a_body_that_is_too_large_is_a_dead_letter() -> None:
    webhooks = WebhookShard(webhook(body={"a": ["${event.note}"] * 60}))
    webhooks.send_event("a", note="x" * 9000)
    assert [letter.reason for letter in webhooks.letters] == ["action_too_large"]


@pytest.mark.parametrize("size", [900_000, 900_001])
def test_a_kafka_action_that_kafka_would_not_take_is_a_dead_letter(size: int) -> None:
    kafka = rule("r", actions=[{"type": "kafka", "body": {"a": "${event.note}"}}])
    webhooks = WebhookShard(kafka, max_event_bytes=2_000_000)
    webhooks.send_event("a", note="x" * (size - len('{"a":""}')))
    letters = [(letter.reason, letter.detail, letter.rule, letter.stage, letter.action) for letter in webhooks.letters]
    detail = "action 'kafka': 900001 bytes, allowed are 900000"
    assert letters == ([("kafka_action_too_large", detail, "r", "rule", None)] if size > 900_000 else [])
    assert webhooks.counts["actions"] == (size <= 900_000)
    assert webhooks.counts["events_handled"] == 1


AMPLIFIED = {"a": "${event.note}" * 10_000}


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ({"type": "kafka", "body": AMPLIFIED}, "kafka_action_too_large"),
        ({"type": "webhook", "destination": "crm", "body": AMPLIFIED}, "body_too_large"),
    ],
)
def test_a_body_that_names_a_long_value_often_is_one_letter(action: dict[str, Any], reason: str) -> None:
    webhooks = WebhookShard(rule("r", actions=[action, {"type": "debug"}]))
    webhooks.send_event("a", note="x" * 9000)
    assert [(letter.reason, letter.rule, letter.action) for letter in webhooks.letters] == [(reason, "r", None)]
    assert "bytes or more, allowed are 900000" in webhooks.letters[0].detail
    assert webhooks.counts["actions"] == 1, "the other action leaves"


def test_all_bodies_of_an_event_have_a_limit_and_one_letter_a_rule() -> None:
    body = {"a": ["${event.note}"] * 90}
    actions = [{"type": "kafka", "name": f"k{number}", "body": body} for number in range(100)]
    webhooks = WebhookShard(rule("r", actions=actions))
    webhooks.send_event("a", note="x" * 9000)
    assert webhooks.counts["actions"] == 10
    (letter,) = webhooks.letters
    assert letter.reason == "body_too_large"
    assert letter.detail.endswith("allowed are 8000000 (and 89 more actions of the rule)")
    webhooks.send_event("b", note="x")
    assert webhooks.counts["actions"] == 110, "the limit is one of an event"


def test_a_destination_that_is_not_there_is_a_dead_letter() -> None:
    webhooks = WebhookShard(destinations=("ads",))
    webhooks.send_event("a")
    assert [letter.reason for letter in webhooks.letters] == ["destination_unknown"]
    assert webhooks.start_due() == []


def test_webhooks_outlive_the_idle_user_and_not_the_forgotten_one() -> None:
    webhooks = WebhookShard()
    webhooks.send_event("a")
    (one,) = webhooks.start_due(HOUR)
    webhooks.step()
    assert (webhooks.shard.state.users, webhooks.waiting()) == ({}, ["a"])
    webhooks.step(control({"forget": "u"}))
    assert webhooks.shard.state.is_empty
    assert webhooks.counts["deliveries_forgotten"] == 1
    webhooks.end(one, RETRY)
    assert webhooks.shard.state.is_empty


def test_what_is_held_over_night_goes_to_its_destination() -> None:
    webhooks = WebhookShard(rule("r", actions=[WEBHOOK], quiet_hours={"start": "00:00", "end": "23:59"}))
    webhooks.send_event("a")
    assert webhooks.start_due() == []
    webhooks.shard.now_ms += DAY - 60 * SECOND
    webhooks.step()
    assert names(webhooks.start_due()) == ["crm:a"]


def switch(destination: str, enabled: bool) -> Any:
    return control({"destination": destination, "enabled": enabled})


def test_a_disabled_destination_gets_nothing_until_it_is_enabled() -> None:
    webhooks = WebhookShard(rule("r", actions=[WEBHOOK, WEBHOOK | {"name": "ad", "destination": "ads"}]))
    webhooks.send_event("a")
    (crm,) = [delivery for delivery in webhooks.start_due() if delivery.destination == "crm"]
    webhooks.step(switch("crm", False))
    webhooks.shard.journal.rewrite(webhooks.shard.now_ms)
    webhooks.shard.restore()
    webhooks.send_event("b")
    assert [(letter.reason, letter.action and letter.action.event_id) for letter in webhooks.letters] == [
        ("destination_disabled", "a"),
        ("destination_disabled", "b"),
    ]
    webhooks.end(crm, DELIVERED)  # was under way
    webhooks.step(switch("crm", True))
    webhooks.send_event("c")
    assert names(webhooks.start_due()) == ["crm:c"]
    assert sorted(webhooks.waiting()) == ["a", "b", "c", "c"]
    assert (webhooks.counts["destinations_disabled"], webhooks.counts["destinations_enabled"]) == (1, 1)


def test_a_shard_without_users_remembers_what_is_disabled() -> None:
    webhooks = WebhookShard()
    webhooks.step(control({"forget": "u"}))
    webhooks.step(switch("crm", False))
    assert not webhooks.shard.state.is_empty
    webhooks.shard.restore()
    assert list(webhooks.shard.state.disabled) == ["crm"]
    webhooks.step(switch("crm", True))
    assert list(webhooks.shard.state.disabled) == []


@pytest.mark.parametrize("enabled", ["false", 0, None])
def test_a_switch_that_is_none_is_a_dead_letter(enabled: Any) -> None:
    webhooks = WebhookShard()
    done = webhooks.shard.step(control({"destination": "crm", "enabled": enabled}))
    done.include_shared_dead_letters()
    assert [letter.reason for letter in done.dead_letters] == ["bad_control_record"]


def test_a_410_is_told() -> None:
    webhooks = WebhookShard()
    webhooks.send_event("a")
    (one,) = webhooks.start_due()
    user_id = webhooks.outbox.in_flight.pop(one.action_id)
    done = webhooks.shard.step(
        delivery_results=[DeliveryResult(user_id, one.action_id, GONE, status=410, message="HTTP 410")]
    )
    assert done.gone_destinations == ["crm"]


def test_a_receiver_that_is_away_for_half_an_hour_gets_nothing_that_expired() -> None:
    """And all the rest; the job itself is away for five of these minutes."""
    minute, chance = 60 * SECOND, random.Random(27)
    expires = {"brief": "7m", "half_hour": "30m", "two_hours": "2h", "never": None}
    rules = [rule(name, actions=[WEBHOOK], **({"expires": text} if text else {})) for name, text in expires.items()]
    webhooks = WebhookShard(*rules, decision_sample=0.0)
    users = [f"u{number}" for number in range(12)]
    for user_id in users:
        webhooks.load(user_id)
    began_ms = webhooks.shard.now_ms
    away = range(began_ms + 5 * minute, began_ms + 35 * minute)
    received: dict[str, int] = {}
    decided: dict[str, tuple[str, int]] = {}  # rule, and when it expires
    while webhooks.shard.now_ms < began_ms + 150 * minute:
        now_ms = webhooks.shard.now_ms
        if now_ms < began_ms + 40 * minute:
            webhooks.send_event(f"e{now_ms}", chance.choice(users))
            decided |= {
                each.action_id: (each.rule, each.expires_ms)
                for queue in webhooks.shard.state.deliveries.values()
                for each in queue
            }
        webhooks.step()
        results = []
        for delivery in webhooks.start_due():
            user_id = webhooks.outbox.in_flight.pop(delivery.action_id)
            if now_ms in away:  # an open breaker sends nothing and tries again soon
                outcome, attempts = chance.choice(((RETRY, 1), (DELAYED, 0)))
            else:
                outcome, attempts = DELIVERED, 1
                received[delivery.action_id] = now_ms
            results.append(DeliveryResult(user_id, delivery.action_id, outcome, attempts, 503, chance=chance.random()))
        webhooks.step(delivery_results=results)
        webhooks.shard.now_ms += 10 * SECOND
        if now_ms == began_ms + 20 * minute:
            webhooks.shard.restore()
            webhooks.outbox = Outbox({})
            webhooks.outbox.changed(webhooks.shard.state.deliveries, list(webhooks.shard.state.deliveries))
            webhooks.shard.now_ms += 5 * minute
            webhooks.step()

    assert len(decided) == len(expires) * (40 * 6 - 5 * 6)
    late = [each for each, at_ms in received.items() if 0 < decided[each][1] <= at_ms]
    assert late == []
    lost = Counter(name for each, (name, _) in decided.items() if each not in received)
    assert lost["brief"] > 100
    assert lost["half_hour"] > 0
    assert set(lost) == {"brief", "half_hour"}
    ends = Counter(f"{each.decision} {each.rule}" for each in webhooks.decisions)
    assert {name: ends[f"expired {name}"] for name in lost} == dict(lost)
    assert webhooks.letters == []
    assert not list(webhooks.shard.state.deliveries.items())
