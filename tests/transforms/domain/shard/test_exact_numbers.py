"""Integers of events and profiles reach every output with the digits that were sent, however long."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, batch, control, event, fetched, filter_set, record, rule
from transforms.adapters.lua.engines import Isolation
from transforms.domain.base import exact_json
from transforms.domain.rules.sets import RuleSet, decode_rule_set, encode_rule_set
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult

DIGITS = ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890", "9" * 400, "9" * 5000]


def raw(digits: str, **fields: Any) -> Any:
    """The record of an event with a long integer in ``amount`` and in ``parameters.order.id``."""
    made = orjson.dumps(event(**fields, amount="@", parameters={"order": {"id": "@"}}))
    return record(made.replace(b'"@"', digits.encode()), b"u1")


def known(digits: str) -> Answer:
    """The user API's answer for a user with a long integer."""
    profile = b'{"country":"US","account":%s,"nested":{"x":[%s]}}' % (digits.encode(), digits.encode())
    user = fetched({"profile": {}, "visit": None, "history": []})
    return Answer("u1", type(user)(user.enrichment, profile, user.visit, user.history))


def bodies(done: StepResult) -> list[str]:
    return [action.body.decode() for action in done.actions]


@pytest.mark.parametrize("digits", DIGITS, ids=lambda digits: digits[:22])
def test_event_profile_and_history_have_their_digits_in_bodies_also_after_a_restore(digits: str) -> None:
    shard = Shard(rule(), history_fields=("amount", "parameters"), max_event_bytes=100_000)
    shard.step(batch(raw(digits)))
    shard.restore()  # the event waits for its user
    (body,) = bodies(shard.step(answers=[known(digits)]))
    assert body.count(digits) == 4
    assert f'"amount":{digits}' in body
    assert f'"id":{digits}' in body
    shard.restore()
    (body,) = bodies(shard.step(batch(event("u1"))))
    history = body[body.index('"eventHistory"') :]
    assert f'"amount":{digits},"parameters":{{"order":{{"id":{digits}}}}}' in history
    inspected = shard.step(control({"inspect": "u1"})).inspections[0].body.decode()
    assert inspected.count(digits) == 4


@pytest.mark.parametrize("digits", DIGITS, ids=lambda digits: digits[:22])
def test_a_late_event_keeps_the_digits_of_a_history(digits: str) -> None:
    shard = Shard(rule(), history_fields=("amount",), max_event_bytes=100_000)
    shard.step(batch(raw(digits, timestamp=NOW_MS), raw(digits, timestamp=NOW_MS - 5000)), [known("1")])
    shard.step(answers=[known("1")])
    (body,) = bodies(shard.step(batch(event("u1"))))
    assert body.count(f'"amount":{digits}') == 2


@pytest.mark.parametrize("digits", DIGITS, ids=lambda digits: digits[:22])
def test_a_template_passes_digits_on(digits: str) -> None:
    body = {"id": "${event.parameters.order.id}", "text": "order ${event.amount}", "account": "${user.account}"}
    shard = Shard(
        rule(actions=[{"type": "kafka", "topic": "t", "body": body | {"ours": 2**70}}]), max_event_bytes=100_000
    )
    shard.step(batch(raw(digits)))
    (written,) = bodies(shard.step(answers=[known(digits)]))
    assert written == f'{{"id":{digits},"text":"order {digits}","account":{digits},"ours":{2**70}}}'


@pytest.mark.parametrize("digits", DIGITS, ids=lambda digits: digits[:22])
def test_a_sequence_that_ends_has_the_digits_of_its_beginning(digits: str) -> None:
    ends = rule(sequence={"within": "1m", "not_followed_by": "false"})
    shard = Shard(ends, max_event_bytes=100_000)
    shard.step(batch(raw(digits)))
    shard.step(answers=[known("1")])
    shard.restore()
    (body,) = bodies(shard.step(stream_ms=NOW_MS + 80_000))
    assert f'"amount":{digits}' in body


def test_integers_that_differ_in_their_last_digit_are_no_match() -> None:
    follows = {"within": "1m", "followed_by": 'event.event_name == "b"', "match": "amount"}
    shard = Shard(rule("r", 'event.event_name == "a"', sequence=follows))
    shard.step(batch(raw("18446744073709551616", event_name="a")))
    shard.step(answers=[known("1")])
    assert bodies(shard.step(batch(raw("18446744073709551617", event_name="b")))) == []
    assert len(bodies(shard.step(batch(raw("18446744073709551616", event_name="b"))))) == 1


def test_one_number_has_one_match_however_it_is_written() -> None:
    follows = {"within": "1m", "followed_by": 'event.event_name == "b"', "match": "amount"}
    shard = Shard(rule("r", 'event.event_name == "a"', sequence=follows))
    shard.step(batch(raw("18446744073709551616", event_name="a")))
    shard.step(answers=[known("1")])
    assert len(bodies(shard.step(batch(raw("18446744073709551616.0", event_name="b"))))) == 1


@pytest.mark.parametrize("digits", DIGITS, ids=lambda digits: digits[:22])
@pytest.mark.parametrize("isolation", ["none", pytest.param("process", marks=pytest.mark.slow)])
def test_rules_see_the_nearest_double(digits: str, isolation: Isolation) -> None:
    number = float(digits)
    compared = f"({number!r})" if abs(number) < 1e308 else "math.huge"
    conditions = (
        f"event.amount == {compared}",
        f"event.parameters.order.id == {compared}",
        f"user.account == {compared}",
        f"user.nested.x[1] == {compared}",
        f"(#history == 0 or history[1].amount == {compared})",
    )
    rules = tuple(rule(f"r{number}", condition) for number, condition in enumerate(conditions))
    shard = Shard(history_fields=("amount",), max_event_bytes=100_000)
    shard.filters = filter_set(rules, isolation=isolation)
    shard.step(batch(raw(digits)))
    first = shard.step(answers=[known(digits)])
    second = shard.step(batch(raw(digits)))
    shard.filters.close()
    for done in (first, second):
        assert [letter.detail for letter in done.dead_letters] == []
        assert sorted(action.rule for action in done.actions) == ["r0", "r1", "r2", "r3", "r4"]


def test_a_published_rule_keeps_the_integers_of_its_body() -> None:
    action = {"type": "kafka", "topic": "t", "body": {"ours": 2**70}}
    published = RuleSet(1, (rule(actions=[action]),))
    read = decode_rule_set(encode_rule_set(published))
    assert read.rules == published.rules
    assert read.digest == published.digest


def test_a_body_of_debug_is_json_that_others_read() -> None:
    shard = Shard(rule())
    shard.step(batch(raw(DIGITS[0])))
    (body,) = bodies(shard.step(answers=[known("1")]))
    assert json.loads(body)["event"]["amount"] == 2**64
    assert exact_json.dumps(exact_json.loads(body.encode())).decode() == body
