from __future__ import annotations

import pickle
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import rule
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.sets import (
    MAX_RECORD_BYTES,
    Acknowledgement,
    RuleSet,
    decode_rule_set,
    encode_rule_set,
    number_of_key,
    shards_behind,
)

FULL = {
    "name": "full",
    "version": 3,
    "description": "Everything a rule can have.",
    "filter": 'event.event_name == "add_to_cart" -- ü',
    "actions": [
        {"type": "debug"},
        {"type": "kafka", "name": "copy", "topic": "t"},
        {"type": "webhook", "destination": "crm", "history": True, "body": {"user": "${user.id}", "none": None}},
    ],
    "on_missing_profile": "skip",
    "cooldown": {"time": "1d", "key": "event.parameters.sku"},
    "cap": {"count": 2, "per": "week"},
    "quiet_hours": {"start": "22:00", "end": "08:00", "days": ["fri"], "mode": "drop"},
    "active": {"days": ["mon"], "from": "09:00", "to": "17:00"},
    "time_zone": {"profile_field": None, "default": "Europe/Berlin"},
    "sequence": {"not_followed_by": 'event.event_name == "checkout"', "within": "30m", "match": "parameters.cart_id"},
}


def content(**fields: Any) -> dict[str, Any]:
    document = {"name": "r", "version": 1, "filter": "true", "actions": [{"type": "debug"}]}
    return {"version": 1, "number": 7, "published": 5, "by": "me", "note": "", "rules": [document]} | fields


def record(**fields: Any) -> bytes:
    return orjson.dumps({"rules": content(**fields)})


def test_a_set_with_every_field_of_a_rule_is_decoded_as_it_was_encoded() -> None:
    rules = (rule("full", **{name: value for name, value in FULL.items() if name not in ("name", "filter")}), rule("b"))
    rule_set = RuleSet(12, rules, 1_700_000_000_000, "somebody", "a note")
    assert decode_rule_set(encode_rule_set(rule_set)) == rule_set


def test_the_record_is_the_documented_json() -> None:
    rule_set = RuleSet(7, (rule("r"),), 5, "me", "why")
    assert orjson.loads(encode_rule_set(rule_set)) == {"rules": content(note="why")}
    assert rule_set.key == b"set-7"
    assert rule_set.versions == {"r": 1}


def test_a_record_written_by_hand_is_read() -> None:
    decoded = decode_rule_set(record(rules=[FULL]))
    assert orjson.loads(encode_rule_set(decoded))["rules"]["rules"] == [FULL]
    assert decoded.rules[0].cooldown is not None
    assert decoded.rules[0].cooldown.time.ms == 86_400_000


def test_the_digest_is_of_the_rules_alone() -> None:
    rule_set = RuleSet(1, (rule("a"), rule("b")), 5, "me", "note")
    assert RuleSet(2, (rule("a"), rule("b"))).digest == rule_set.digest
    assert RuleSet(1, (rule("b"), rule("a")), 5, "me", "note").digest != rule_set.digest
    assert RuleSet(1, (rule("a"), rule("b", version=2)), 5, "me", "note").digest != rule_set.digest
    assert pickle.loads(pickle.dumps(rule_set)) == rule_set  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"{", "rule set is not JSON: "),
        (b"[]", "rule set: rules is []: "),
        (b'{"rules": 7}', "rule set: rules is 7: "),
        (orjson.dumps({"rules": content(), "more": 1}), "rule set: more is 1: no such field"),
        (record(version=2), "rule set: version is 2, this release reads 1; use the newer release"),
        (record(version=0), "rule set: version is 0: allowed is 1"),
        (record(number=0), "rule set: number is 0: allowed is 1 or more"),
        (record(number=True), "rule set: number is True: "),
        (record(number="7"), "rule set: number is '7': "),
        (record(number=2**53), "rule set: number is 9007199254740992: "),
        (b'{"rules": ' + b"[" * 1000 + b"]" * 1000 + b"}", "rule set: rules is [[[[[["),
        (record(rules=[FULL | {"filter": "x" * 70_000}]), "rule set: rules.0.filter is 'xxx"),
        (record(by=None), "rule set: by is None: "),
        (record(note="x" * 1001), "rule set: note is 'xxx"),
        (record(rules=[]), "rule set: rules is []: "),
        (record(rules=[FULL | {"version": 0}]), "rule set: rules.0.version is 0: "),
        (record(rules=[FULL | {"filter_file": "f.lua"}]), "rule set: rules.0.filter_file is 'f.lua': "),
        (record(rules=[FULL | {"tests": []}]), "rule set: rules.0.tests is []: "),
        (record(rules=[FULL | {"cooldown": "1y"}]), "a duration is a whole number and a unit"),
        (record(rules=[FULL, FULL]), "rule set: rule name 'full' is used twice; names are unique"),
        (b'{"rules": {"version": 1}}', "rule set: number is missing"),
    ],
)
def test_an_invalid_record_is_refused_naming_the_problem(value: bytes, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        decode_rule_set(value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_set_larger_than_a_record_is_neither_encoded_nor_decoded() -> None:
    lua = "-" * 60_000
    many = tuple(rule(f"r{number}", f"true --{lua}") for number in range(16))
    with pytest.raises(RuleError, match=f"rule set is 96.... bytes, allowed are {MAX_RECORD_BYTES}"):
        encode_rule_set(RuleSet(1, many))
    with pytest.raises(RuleError, match=f"bytes, allowed are {MAX_RECORD_BYTES}"):
        decode_rule_set(b" " * (MAX_RECORD_BYTES + 1))
    assert len(encode_rule_set(RuleSet(1, many[:14]))) > 800_000


@pytest.mark.parametrize(
    ("key", "number"),
    [(b"set-7", 7), (b"set-", None), (b"set--1", None), (b"7", None), (b"", None), (None, None), (b"set-1x", None)],
)
def test_the_number_of_a_key(key: bytes | None, number: int | None) -> None:
    assert number_of_key(key) == number


def test_an_acknowledgement_is_the_documented_json_and_is_decoded_again() -> None:
    ack = Acknowledgement(7, 3, 32, 5)
    assert ack.key == b"rules-3"
    assert orjson.loads(ack.to_json()) == {
        "audit": "rules",
        "number": 7,
        "shard": 3,
        "shards": 32,
        "time": 5,
    }
    assert Acknowledgement.of_json(ack.to_json()) == ack
    for other in (b"{", b"[]", b'{"audit": "forget"}', b'{"audit": "rules", "number": 7, "shard": 3, "shards": null}'):
        assert Acknowledgement.of_json(other) is None


def test_the_shards_that_are_behind() -> None:
    acknowledged = [Acknowledgement(6, shard, 4, 10) for shard in range(4)]
    assert shards_behind(6, acknowledged) == ([], 4)
    assert shards_behind(7, acknowledged) == ([0, 1, 2, 3], 4)
    acknowledged += [Acknowledgement(7, 2, 4, 20), Acknowledgement(8, 0, 4, 30)]
    assert shards_behind(7, acknowledged) == ([1, 3], 4)
    # A job that was restored from an older state acknowledges an older set.
    assert shards_behind(7, [*acknowledged, Acknowledgement(6, 2, 4, 40)]) == ([1, 2, 3], 4)
    assert shards_behind(7, []) == ([], 0)


def test_the_shards_are_those_of_the_latest_job() -> None:
    old = [Acknowledgement(7, shard, 4, 10) for shard in range(4)]
    assert shards_behind(7, [*old, Acknowledgement(7, 0, 2, 20)]) == ([1], 2)
    assert shards_behind(7, [Acknowledgement(7, 0, 2, 20), *old[1:]]) == ([1], 2)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_arbitrary_json_is_a_rule_error(value: Any) -> None:
    for document in (value, {"rules": value}, {"rules": content(rules=value)}, {"rules": content(rules=[value])}):
        try:
            raw = orjson.dumps(document)
        except TypeError:
            return  # integers beyond 64 bits
        with pytest.raises(RuleError):
            decode_rule_set(raw)
