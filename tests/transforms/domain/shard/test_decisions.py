"""docs/decisions.md: what the decision log is told."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from typing import Any

import msgspec
import pytest

from tests.builders import NOW_MS, Shard, batch, event, fetched, filter_set, rule
from tests.integration.jobs import ROOT
from transforms.domain.base.calendar import rfc_3339
from transforms.domain.rules.actions import action_id
from transforms.domain.shard import decisions
from transforms.domain.shard.decisions import Decision, decode_decision, sampled
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult
from transforms.domain.webhooks.delivery_queue import DELAYED, DELIVERED, REFUSED, RETRY, DeliveryResult
from transforms.domain.webhooks.retries import RetrySchedule

MINUTE, HOUR = 60_000, 3_600_000
KNOWN = {"profile": {"country": "US"}, "visit": None, "history": []}


class Logged:
    """A shard with a loaded user ``u`` and a decision log; each call tells what was added to it."""

    def __init__(self, *rules: Any, sample: float | None = 0.0, known: Any = KNOWN, **settings: Any) -> None:
        settings = {"ttl_ms": 100 * HOUR, "destinations": {"crm": RetrySchedule()}, **settings}
        self.shard = Shard(decision_sample=sample, **settings)
        self.shard.step(batch(event("u", event_id="loaded", event_name="hello")))
        self.shard.step(answers=[Answer("u", fetched(known))])
        self.shard.filters = filter_set(rules)

    def say(self, event_id: str, name: str = "go", at_ms: int = 0, **fields: Any) -> list[dict[str, Any]]:
        sent = event("u", event_id=event_id, event_name=name, timestamp=NOW_MS + at_ms, **fields)
        return lines(self.shard.step(batch(sent)))

    def step(self, **named: Any) -> list[dict[str, Any]]:
        return lines(self.shard.step(**named))


def lines(done: StepResult) -> list[dict[str, Any]]:
    return [json.loads(decision.to_json()) for decision in done.decisions]


def told(found: list[dict[str, Any]]) -> list[tuple[str, str, str | None]]:
    return [(one["decision"], one["rule"], one.get("detail")) for one in found]


GO = 'event.event_name == "go"'


def test_an_action_that_is_decided_is_one_line_with_all_that_is_known_of_it() -> None:
    actions = [{"type": "debug"}, {"type": "kafka", "name": "offer"}]
    logged = Logged(rule("r", GO, version=3, actions=actions))
    logged.shard.now_ms = NOW_MS + 77
    debug, kafka = logged.say("a", at_ms=5)
    assert debug == {
        "decision": "fired",
        "time": NOW_MS + 77,
        "user_id": "u",
        "event_id": "a",
        "event_name": "go",
        "event_time": NOW_MS + 5,
        "rule": "r",
        "version": 3,
        "rule_set": 0,
        "action": "debug",
        "action_id": action_id("u", "a", "r", 3, "debug"),
    }
    assert kafka == debug | {"action": "offer", "action_id": action_id("u", "a", "r", 3, "offer")}


def test_without_a_log_nothing_is_told() -> None:
    logged = Logged(rule("r", GO), rule("bad", "event.x.y"), rule("cold", GO, cooldown="1h"), sample=None)
    assert logged.say("a") == logged.say("b") == []


def test_silence_is_told_of_a_sample_only() -> None:
    rules = (rule("r", GO), rule("s", "false"))
    assert told(Logged(*rules, sample=0.0).say("a")) == [("fired", "r", None)]
    assert told(Logged(*rules, sample=1.0).say("a")) == [("fired", "r", None), ("not_allowed", "s", None)]


def test_what_stops_a_rule_is_told() -> None:
    cold = rule("cold", GO, cooldown={"time": "1h", "key": "event.platform"})
    capped = rule("capped", GO, cap={"count": 1, "window": "7d"})
    daily = rule("daily", GO, cap={"count": 1, "per": "day"})
    logged = Logged(cold, capped, daily, sample=1.0)
    assert [what for what, _, _ in told(logged.say("a", platform="web"))] == ["fired"] * 3
    assert told(logged.say("b", at_ms=1, platform="web")) == [
        ("cooled_down", "cold", f"key s:web, until {rfc_3339(NOW_MS + HOUR)}"),
        ("capped", "capped", "1 in 1w"),
        ("capped", "daily", "1 per day"),
    ]


def test_what_stops_a_rule_by_record_time_alone_is_told() -> None:
    rules = (
        rule("cold", GO, cooldown="1h"),
        rule("keyed", GO, cooldown={"time": "1h", "key": "event.platform"}),
        rule("capped", GO, cap={"count": 1, "window": "7d"}),
        rule("daily", GO, cap={"count": 1, "per": "day"}),
    )
    logged = Logged(*rules)
    logged.say("a", at_ms=-720 * HOUR, platform="web")  # came now, of thirty days ago
    assert told(logged.say("b", at_ms=1, platform="web")) == [
        ("cooled_down", "cold", f"until {rfc_3339(NOW_MS + HOUR)}, by record time"),
        ("cooled_down", "keyed", f"key s:web, until {rfc_3339(NOW_MS + HOUR)}, by record time"),
        ("capped", "capped", "1 in 1w, by record time"),
        ("capped", "daily", "1 per day, by record time"),
    ]


def test_an_error_is_told_with_its_message() -> None:
    ((what, name, detail),) = told(Logged(rule("bad", "event.nothing.more"), sample=1.0).say("a"))
    assert (what, name) == ("error", "bad")
    assert detail is not None
    assert "nothing" in detail


def test_a_rule_that_is_set_aside_is_silent() -> None:
    endless = rule("endless", "while true do end return true")
    logged = Logged(endless, sample=1.0)
    whats = [told(logged.say(f"e{n}"))[0][0] for n in range(4)]
    assert whats == ["error", "error", "error", "set_aside"]


def test_a_rule_that_passes_an_event_over_is_skipped() -> None:
    rules = (rule("r", GO, on_missing_profile="skip"), rule("s", "false", on_missing_profile="skip"))
    logged = Logged(*rules, known="unavailable", sample=1.0)
    assert told(logged.say("a")) == [
        ("skipped", "r", "profile is unavailable"),
        ("skipped", "s", "profile is unavailable"),
    ]
    logged = Logged(*rules, known="unavailable")
    assert told(logged.say("a")) == [("skipped", "r", "profile is unavailable")]


def test_what_quiet_hours_hold_is_told_when_it_is_held_and_when_it_goes() -> None:
    quiet = rule("r", GO, quiet_hours={"start": "00:00", "end": "08:00"}, version=2)
    logged = Logged(quiet)  # it is midnight, New Year's Day
    (held,) = logged.say("a")
    assert told([held]) == [("held", "r", "until 2024-01-01T08:00:00.000Z")]
    logged.shard.restore()
    (released,) = logged.step(now_ms=NOW_MS + 8 * HOUR)
    same = {"user_id", "event_id", "rule", "version", "rule_set", "action", "action_id"}
    assert released["decision"] == "released"
    assert {name: released[name] for name in same} == {name: held[name] for name in same}


def test_what_is_held_and_has_no_rule_any_more_is_dropped() -> None:
    logged = Logged(rule("r", GO, quiet_hours={"start": "00:00", "end": "08:00"}))
    logged.say("a")
    logged.shard.filters = filter_set((rule("other", "false"),))
    assert told(logged.step(now_ms=NOW_MS + 8 * HOUR)) == [("dropped", "r", "no rule of this name is live")]


def test_of_a_101st_held_action_it_is_told_that_it_is_refused() -> None:
    logged = Logged(rule("r", GO, quiet_hours={"start": "00:00", "end": "08:00"}))
    whats = [told(logged.say(f"e{n}"))[0] for n in range(101)]
    assert {what for what, _, _ in whats[:100]} == {"held"}
    assert whats[100][:2] == ("refused", "r")


@pytest.mark.parametrize("quiet", [{}, {"quiet_hours": {"start": "00:00", "end": "08:00"}}], ids=["now", "quiet hours"])
def test_an_action_that_is_too_large_for_kafka_is_told_to_be_refused(quiet: dict[str, Any]) -> None:
    logged = Logged(rule("r", GO, actions=[{"type": "kafka", "body": {"a": ["${event.note}"] * 101}}], **quiet))
    whats = told(logged.say("a", note="x" * 9000))
    assert [what[:2] for what in whats] == [("refused", "r")]
    assert re.fullmatch(r"action 'kafka': 900\d{3} bytes or more, allowed are 900000", whats[0][2])
    assert logged.step(now_ms=NOW_MS + 8 * HOUR) == []


def sequence(**fields: Any) -> Any:
    return rule("cart", GO, sequence={"within": "30m", "match": "parameters.cart", **fields})


def test_a_sequence_is_told_from_its_beginning_to_its_end() -> None:
    logged = Logged(sequence(not_followed_by='event.event_name == "stop"'), sample=1.0)
    cart = {"parameters": {"cart": "c"}}
    assert told(logged.say("a")) == [("no_match", "cart", "the event has no parameters.cart")]
    assert told(logged.say("b", **cart)) == [("begun", "cart", "until 2024-01-01T00:30:00.000Z")]
    assert told(logged.say("c", at_ms=-1, **cart)) == [("not_begun", "cart", "a sequence that began later is open")]
    assert told(logged.say("d", "stop", at_ms=1, **cart)) == [("followed", "cart", "sequence that event b began")]
    logged.say("e", at_ms=2, **cart)
    timed_out, fired = logged.step(stream_ms=NOW_MS + HOUR)
    assert [one["decision"] for one in (timed_out, fired)] == ["timed_out", "fired"]
    assert {(one["event_id"], one["event_time"]) for one in (timed_out, fired)} == {("e", NOW_MS + 2)}


def test_a_sequence_that_had_to_be_followed_expires() -> None:
    logged = Logged(sequence(followed_by='event.event_name == "stop"'))
    cart = {"parameters": {"cart": "c"}}
    logged.say("a", **cart)
    assert told(logged.say("b", "stop", at_ms=1, **cart)) == [
        ("followed", "cart", "sequence that event a began"),
        ("fired", "cart", None),
    ]
    logged.say("c", at_ms=2, **cart)
    assert told(logged.step(stream_ms=NOW_MS + HOUR)) == [("expired", "cart", "nothing followed in time")]


def test_a_sequence_without_a_rule_is_dropped() -> None:
    logged = Logged(sequence(followed_by="true"))
    logged.say("a", parameters={"cart": "c"})
    logged.shard.filters = filter_set(())
    (dropped,) = logged.step(stream_ms=NOW_MS + HOUR)
    assert told([dropped]) == [("dropped", "cart", "no rule with this sequence is live")]
    assert dropped["event_time"] == NOW_MS


def test_a_webhook_is_told_of_until_it_is_delivered() -> None:
    logged = Logged(rule("r", GO, actions=[{"type": "webhook", "destination": "crm"}]))
    (fired,) = logged.say("a")
    assert (fired["decision"], fired["destination"]) == ("fired", "crm")

    def come_back(ended: str, **named: Any) -> list[dict[str, Any]]:
        return logged.step(delivery_results=[DeliveryResult("u", fired["action_id"], ended, **named)])

    (retried,) = come_back(RETRY, attempts=3, status=503, message="status: 503", latency_ms=12)
    assert come_back(DELAYED, attempts=0, retry_after_s=1.0) == []
    (delivered,) = come_back(DELIVERED, attempts=1, status=204, latency_ms=7)
    shared = {
        "time": NOW_MS, "user_id": "u", "event_id": "a", "rule": "r", "version": 1, "action": "webhook",
        "action_id": fired["action_id"], "destination": "crm",
    }  # fmt: skip
    assert retried == shared | {
        "decision": "retried", "attempts": 3, "status": 503, "latency_ms": 12, "detail": "status: 503",
    }  # fmt: skip
    assert delivered == shared | {"decision": "delivered", "attempts": 4, "status": 204, "latency_ms": 7}
    assert come_back(DELIVERED) == []


def test_a_webhook_that_is_not_delivered_says_why() -> None:
    logged = Logged(
        rule("r", GO, actions=[{"type": "webhook", "destination": "crm"}]),
        rule("lost", GO, actions=[{"type": "webhook", "destination": "nowhere"}]),
    )
    found = logged.say("a")
    assert [(one["decision"], one["rule"]) for one in found] == [
        ("fired", "r"), ("fired", "lost"), ("undelivered", "lost"),
    ]  # fmt: skip
    assert found[2]["detail"].startswith("destination_unknown: ")
    (ended,) = logged.step(
        delivery_results=[DeliveryResult("u", found[0]["action_id"], REFUSED, 1, 400, "status: 400", latency_ms=31)]
    )
    assert (ended["decision"], ended["attempts"], ended["status"], ended["latency_ms"]) == ("undelivered", 1, 400, 31)
    assert ended["detail"] == "undelivered: after 1 attempts: status: 400"


def test_what_is_told_is_read_again_also_when_a_later_release_told_more() -> None:
    told = Decision(decision="fired", time=1, user_id="ü\n", event_id="e", rule="r", rule_set=0)
    assert decode_decision(told.to_json()) == told
    assert b"action" not in told.to_json()
    assert decode_decision(told.to_json()[:-1] + b',"more":{}}') == told
    for wrong in (b"", b"[]", b'{"decision":"fired"}', b"\xff"):
        with pytest.raises(msgspec.DecodeError):
            decode_decision(wrong)


def test_every_kind_of_decision_is_documented() -> None:
    text = (ROOT / "docs/decisions.md").read_text("utf-8")
    rows = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    own = {name: kind for name, kind in vars(decisions).items() if name.isupper() and name[0] != "_"}
    kinds = [kind for name, kind in own.items() if name not in ("FILE", "KINDS")]
    assert sorted(kinds) == sorted(decisions.KINDS)
    assert sorted(name for name in rows if name in kinds) == sorted(kinds)
    assert set(Decision.__struct_fields__) <= set(rows)


# The sample

RULES = [rule(f"rule-{n}") for n in range(10)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_sample_has_its_share_of_every_rule_user_and_kind_of_event_id(share: float) -> None:
    chance = random.Random(5)
    kinds = {
        "numbers": [str(n) for n in range(4000)],
        "padded": [f"evt_{n:08d}" for n in range(4000)],
        "random": [f"{chance.getrandbits(128):032x}" for _ in range(4000)],
    }
    margin = 5 * (share * (1 - share) / 4000) ** 0.5
    for ids in kinds.values():
        found = [{one.name for one in sampled("u", event_id, RULES, share)} for event_id in ids]
        for one in RULES:
            assert abs(sum(one.name in names for names in found) / 4000 - share) < margin
        # Two rules are no more often in it together than chance has it.
        for one, other in itertools.pairwise(RULES):
            both = sum(one.name in names and other.name in names for names in found) / 4000
            assert abs(both - share**2) < 5 * (share**2 * (1 - share**2) / 4000) ** 0.5


def test_a_sample_is_chosen_by_a_hash_that_stays_the_same() -> None:
    """A replay under another release must choose the same; this is how, said in plain bytes."""

    def number(text: bytes) -> int:
        return int(hashlib.blake2b(text, digest_size=8).hexdigest(), 16)

    def is_in(user_id: str, event_id: str, name: str, share: float) -> bool:
        texts = [bytes([0xA0 + len(text)]) + text.encode() for text in (user_id, event_id)]
        factor = number(name.encode()) | 1
        return (number(b"\x92" + b"".join(texts)) * factor) % 2**64 / 2**64 < share

    for n in range(200):
        wanted = [one.name for one in RULES if is_in("u", f"e{n}", one.name, 0.2)]
        assert [one.name for one in sampled("u", f"e{n}", RULES, 0.2)] == wanted
        assert [one.name for one in sampled("u", f"e{n}", reversed(RULES), 0.2)] == wanted[::-1]


def test_a_larger_sample_has_all_of_a_smaller_one() -> None:
    for n in range(100):
        names = [{one.name for one in sampled("u", f"e{n}", RULES, share)} for share in (0, 0.01, 0.3, 0.7, 1)]
        assert all(smaller <= larger for smaller, larger in itertools.pairwise(names))
        assert (names[0], len(names[-1])) == (set(), len(RULES))


def test_user_and_event_are_told_apart() -> None:
    def many(pairs: list[tuple[str, str]]) -> list[list[str]]:
        return [[one.name for one in sampled(user, event_id, RULES, 0.5)] for user, event_id in pairs]

    assert many([("ab", f"c{n}") for n in range(9)]) != many([("a", f"bc{n}") for n in range(9)])
