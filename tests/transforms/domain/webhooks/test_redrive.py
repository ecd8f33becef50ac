"""Redrive records, and what a shard makes of them."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, control
from tests.transforms.domain.shard.test_webhook_dispatch import Mailed, names, switch
from transforms.domain.events.dead_letter import LostAction
from transforms.domain.rules.actions import action_id
from transforms.domain.webhooks.delivery_queue import DELIVERED, REFUSED, RETRY, Delivery
from transforms.domain.webhooks.redrive import read_redrive, redrive_record

LOST = LostAction(action_id("u", "a", "r", 1, "webhook"), 1, "webhook", "crm", "u", "a", b'{"n":1}', 5, 7, 503)


def redrive(**fields: Any) -> dict[str, Any]:
    """A redrive record with some of its action's fields as given; None leaves one out."""
    record = orjson.loads(redrive_record(LOST, "r"))
    action = record["action"] | fields
    return record | {"action": {name: value for name, value in action.items() if value is not None}}


def test_a_redriven_action_is_the_same_webhook_decided_now() -> None:
    user_id, delivery = read_redrive(redrive_record(LOST, "r"), 99)
    assert user_id == "u"
    assert delivery == Delivery(LOST.action_id, "crm", "r", 1, "webhook", "a", b'{"n":1}', 99, 99)
    assert (delivery.attempts, delivery.first_ms) == (0, 0)


@pytest.mark.parametrize("name", ["decided_ms", "attempts", "status"])
def test_what_is_for_people_may_be_missing(name: str) -> None:
    read_redrive(orjson.dumps(redrive(**{name: None})), 99)


MALFORMED = [
    ({"action_id": "x\r\ny: 1"}, "$.action.action_id"),
    ({"action_id": "0" * 32 + "\n"}, "$.action.action_id"),
    ({"rule": ""}, "$.action.rule"),
    ({"rule": None}, "`rule`"),
    ({"rule_version": 0}, "$.action.rule_version"),
    ({"rule_version": "1"}, "$.action.rule_version"),
    ({"action": 7}, "$.action.action"),
    ({"destination": "Not A Name"}, "$.action.destination"),
    ({"event_id": ""}, "$.action.event_id"),
    ({"body": "§"}, "$.action.body"),
    ({"body": None}, "`body`"),
    ({"user_id": "v"}, "action.user_id is 'v', allowed is 'u'"),
    ({"more": 1}, "`more`"),
]


@pytest.mark.parametrize(("fields", "named"), MALFORMED, ids=[named for _, named in MALFORMED])
def test_a_record_that_is_none_is_a_dead_letter_that_names_the_field(fields: dict[str, Any], named: str) -> None:
    mailed = Mailed()
    mailed.take(control(redrive(**fields)))
    (letter,) = mailed.letters
    assert (letter.reason, letter.stage, letter.topic, letter.offset) == ("bad_control_record", "control", "control", 0)
    assert named in letter.detail
    assert mailed.waiting() == []


@pytest.mark.parametrize(
    "record",
    [
        {"redrive": "u"},
        {"redrive": 7, "action": {}},
        {"redrive": "u", "action": []},
        redrive() | {"inspect": 1},
        b'{"redrive": "u", "action": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    ],
)
def test_so_is_one_of_another_shape(record: Any) -> None:
    mailed = Mailed()
    mailed.take(control(record))
    assert [one.reason for one in mailed.letters] == ["bad_control_record"]
    assert mailed.letters[0].detail.startswith("redrive: ")


def test_one_that_every_shard_gets_is_told_once() -> None:
    done = Shard().step(control({"redrive": 7, "destination": "crm"}))
    assert (len(done.dead_letters), len(done.shared_dead_letters)) == (0, 1)


def lost(mailed: Mailed) -> LostAction:
    """The action of the one dead letter that there is, which is taken away."""
    (letter,) = mailed.letters
    mailed.letters.clear()
    assert letter.action is not None
    return letter.action


def test_a_refused_webhook_is_sent_again_with_its_id_and_body() -> None:
    mailed = Mailed()
    mailed.say("a")
    (first,) = mailed.collect()
    mailed.end(first, REFUSED, status=400, message="HTTP 400")
    record = orjson.loads(redrive_record(lost(mailed), "r"))
    mailed.shard.now_ms += 10 * 86_400_000
    mailed.take(control(record))
    mailed.shard.restore()
    (again,) = mailed.collect()
    assert (again.action_id, again.body, again.rule, again.event_id) == (first.action_id, first.body, "r", "a")
    assert again.decided_ms == NOW_MS + 10 * 86_400_000
    mailed.end(again, RETRY, status=503)  # its three days have only begun
    assert mailed.waiting() == ["a"]
    (again,) = mailed.collect(60_000)
    mailed.end(again, DELIVERED, status=200)
    assert (mailed.waiting(), mailed.letters, mailed.counts["redrives"]) == ([], [], 1)
    assert mailed.counts["deliveries_queued"] == mailed.counts["deliveries_refused"] + 1 == 2


def test_it_goes_behind_what_waits_already() -> None:
    mailed = Mailed()
    mailed.say("b")
    mailed.take(control(redrive()))
    assert mailed.waiting() == ["b", "a"]
    assert names(mailed.collect()) == ["crm:b"]


def test_what_waits_already_is_not_queued_twice() -> None:
    mailed = Mailed()
    mailed.take(control(redrive(), redrive(body=base64.b64encode(b"other").decode())))
    (one,) = mailed.collect()
    mailed.take(control(redrive()))  # under way
    assert (one.body, mailed.waiting(), mailed.letters) == (LOST.body, ["a"], [])
    assert (mailed.counts["redrives"], mailed.counts["redrives_ignored"]) == (1, 2)


def test_what_still_cannot_be_sent_is_a_dead_letter_again_with_the_same_action() -> None:
    mailed = Mailed()
    mailed.take(control(redrive(destination="other")))
    mailed.take(control(redrive(body=base64.b64encode(b"x" * 300_000).decode())))
    mailed.take(switch("crm", False))
    mailed.take(control(redrive()))
    mailed.take(switch("crm", True))
    for number in range(101):
        mailed.take(control(redrive(action_id=f"{number:032x}")))
    assert [one.reason for one in mailed.letters] == [
        "destination_unknown",
        "action_too_large",
        "destination_disabled",
        "delivery_queue_full",
    ]
    again = mailed.letters[2]
    assert again.action is not None
    assert (again.rule, again.stage) == ("r", "delivery")
    assert (again.action.action_id, again.action.body, again.action.user_id) == (LOST.action_id, LOST.body, "u")
    assert len(mailed.waiting()) == 100


def test_a_user_who_is_not_in_the_state_gets_it_too() -> None:
    mailed = Mailed()
    mailed.take(control({"forget": "u"}))
    mailed.take(control(redrive()))
    assert names(mailed.collect()) == ["crm:a"]
    assert mailed.shard.view.users == {}
