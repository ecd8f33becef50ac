"""Redrive records, and what a shard makes of them."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, control
from tests.transforms.domain.shard.test_webhook_dispatch import WebhookShard, names, switch
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.rules.actions import action_id
from transforms.domain.webhooks.delivery_queue import DELIVERED, REFUSED, RETRY, Delivery
from transforms.domain.webhooks.redrive import read_redrive, redrive_record

LOST = LostAction(action_id("u", "a", "r", 1, "webhook"), 1, "webhook", "crm", "u", "a", b'{"n":1}', 5, 7, 503)

UNSIGNED = LetterSigner()
SIGNER = LetterSigner(lambda: (b"n" * 32, b"o" * 32))


def redrive(**fields: Any) -> dict[str, Any]:
    """A redrive record with some of its action's fields as given; None leaves one out."""
    record = orjson.loads(redrive_record(LOST, "r", UNSIGNED))
    action = record["action"] | fields
    return record | {"action": {name: value for name, value in action.items() if value is not None}}


def test_a_redriven_action_is_the_same_webhook_decided_now() -> None:
    user_id, delivery = read_redrive(redrive_record(LOST, "r", UNSIGNED), 99, UNSIGNED)
    assert user_id == "u"
    assert delivery == Delivery(LOST.action_id, "crm", "r", 1, "webhook", "a", b'{"n":1}', 99, 99)
    assert (delivery.attempts, delivery.first_ms) == (0, 0)


@pytest.mark.parametrize("name", ["decided_ms", "attempts", "status"])
def test_what_is_for_people_may_be_missing(name: str) -> None:
    read_redrive(orjson.dumps(redrive(**{name: None})), 99, UNSIGNED)


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
    webhooks = WebhookShard()
    webhooks.step(control(redrive(**fields)))
    (letter,) = webhooks.letters
    assert (letter.reason, letter.stage, letter.topic, letter.offset) == ("bad_control_record", "control", "control", 0)
    assert named in letter.detail
    assert webhooks.waiting() == []


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
    webhooks = WebhookShard()
    webhooks.step(control(record))
    assert [letter.reason for letter in webhooks.letters] == ["bad_control_record"]
    assert webhooks.letters[0].detail.startswith("redrive: ")


def test_one_that_every_shard_gets_is_told_once() -> None:
    done = Shard().step(control({"redrive": 7, "destination": "crm"}))
    assert (len(done.dead_letters), len(done.shared_dead_letters)) == (0, 1)


def lost(webhooks: WebhookShard) -> LostAction:
    """The action of the one dead letter that there is, which is taken away."""
    (letter,) = webhooks.letters
    webhooks.letters.clear()
    assert letter.action is not None
    return letter.action


def test_a_refused_webhook_is_sent_again_with_its_id_and_body() -> None:
    webhooks = WebhookShard()
    webhooks.send_event("a")
    (first,) = webhooks.start_due()
    webhooks.end(first, REFUSED, status=400, message="HTTP 400")
    record = orjson.loads(redrive_record(lost(webhooks), "r", UNSIGNED))
    webhooks.shard.now_ms += 10 * 86_400_000
    webhooks.step(control(record))
    webhooks.shard.restore()
    (again,) = webhooks.start_due()
    assert (again.action_id, again.body, again.rule, again.event_id) == (first.action_id, first.body, "r", "a")
    assert again.decided_ms == NOW_MS + 10 * 86_400_000
    webhooks.end(again, RETRY, status=503)  # its three days have only begun
    assert webhooks.waiting() == ["a"]
    (again,) = webhooks.start_due(60_000)
    webhooks.end(again, DELIVERED, status=200)
    assert (webhooks.waiting(), webhooks.letters, webhooks.counts["redrives"]) == ([], [], 1)
    assert webhooks.counts["deliveries_queued"] == webhooks.counts["deliveries_refused"] + 1 == 2


def test_it_goes_behind_what_waits_already() -> None:
    webhooks = WebhookShard()
    webhooks.send_event("b")
    webhooks.step(control(redrive()))
    assert webhooks.waiting() == ["b", "a"]
    assert names(webhooks.start_due()) == ["crm:b"]


def test_what_waits_already_is_not_queued_twice() -> None:
    webhooks = WebhookShard()
    webhooks.step(control(redrive(), redrive(body=base64.b64encode(b"other").decode())))
    (one,) = webhooks.start_due()
    webhooks.step(control(redrive()))  # under way
    assert (one.body, webhooks.waiting(), webhooks.letters) == (LOST.body, ["a"], [])
    assert (webhooks.counts["redrives"], webhooks.counts["redrives_ignored"]) == (1, 2)


def test_what_still_cannot_be_sent_is_a_dead_letter_again_with_the_same_action() -> None:
    webhooks = WebhookShard()
    webhooks.step(control(redrive(destination="other")))
    webhooks.step(control(redrive(body=base64.b64encode(b"x" * 300_000).decode())))
    webhooks.step(switch("crm", False))
    webhooks.step(control(redrive()))
    webhooks.step(switch("crm", True))
    for number in range(101):
        webhooks.step(control(redrive(action_id=f"{number:032x}")))
    assert [letter.reason for letter in webhooks.letters] == [
        "destination_unknown",
        "action_too_large",
        "destination_disabled",
        "delivery_queue_full",
    ]
    again = webhooks.letters[2]
    assert again.action is not None
    assert (again.rule, again.stage) == ("r", "delivery")
    assert (again.action.action_id, again.action.body, again.action.user_id) == (LOST.action_id, LOST.body, "u")
    assert len(webhooks.waiting()) == 100


def test_a_user_who_is_not_in_the_state_gets_it_too() -> None:
    webhooks = WebhookShard()
    webhooks.step(control({"forget": "u"}))
    webhooks.step(control(redrive()))
    assert names(webhooks.start_due()) == ["crm:a"]
    assert webhooks.shard.state.users == {}


# Signatures


def queued(record: Any, signer: LetterSigner = SIGNER) -> list[str]:
    """The webhooks that wait after a control record, in a job with a key."""
    webhooks = WebhookShard()
    webhooks.shard.signer = signer
    webhooks.step(control(record))
    assert [letter.reason for letter in webhooks.letters] == ([] if webhooks.waiting() else ["bad_control_record"])
    return webhooks.waiting()


@pytest.mark.parametrize("keys", [(b"n" * 32,), (b"o" * 32,), (b"o" * 32, b"x" * 32)], ids=["new", "old", "rotated"])
def test_a_record_that_a_holder_of_a_key_signed_is_obeyed(keys: tuple[bytes, ...]) -> None:
    signed = redrive_record(LOST, "r", LetterSigner(lambda: keys))
    assert queued(signed) == ["a"]
    assert queued(signed, UNSIGNED) == ["a"]  # a job without keys obeys whoever may write to its control topic


@pytest.mark.parametrize("signature", [None, "", "v1,", "v1,AAAA", "ü", "x" * 1_000_000])
def test_a_record_without_a_valid_signature_sends_nothing(signature: str | None) -> None:
    assert queued(redrive() | ({} if signature is None else {"signature": signature})) == []


def test_the_signature_of_a_letter_is_none_of_a_redrive() -> None:
    letter = DeadLetter("undelivered", "", "", -1, -1, 0, None, b"", "r", LOST)
    assert queued(redrive() | {"signature": SIGNER.signed(letter).signature}) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"action_id": "0" * 32},
        {"rule": "q"},
        {"rule_version": 2},
        {"action": "other"},
        {"destination": "ads"},
        {"event_id": "b"},
        {"body": base64.b64encode(b"forged").decode()},
    ],
    ids=str,
)
def test_a_signed_record_with_another_field_sends_nothing(fields: dict[str, Any]) -> None:
    record = orjson.loads(redrive_record(LOST, "r", SIGNER))
    assert queued({**record, "action": record["action"] | fields}) == []


def test_a_signed_record_for_another_user_sends_nothing() -> None:
    record = orjson.loads(redrive_record(LOST, "r", SIGNER))
    assert queued(record) == ["a"]
    assert queued({**record, "redrive": "v", "action": record["action"] | {"user_id": "v"}}) == []
