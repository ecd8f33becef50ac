"""Rule sets in ``HandleEvents`` under Beam's own state cache: what is stored, acknowledged and sent."""

from __future__ import annotations

import struct
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, batch, control, event, grouped, published, rule
from tests.transforms.harness import Harness
from transforms.domain.events.micro_batch import CONTROL, VERSION, MicroBatch
from transforms.domain.events.record import Record, decode_produced
from transforms.domain.rules.model import Rule
from transforms.handle_events import ACTIONS, RECORDS, HandleSettings, _HandleFn

SHARDS = 4
KAFKA = [{"type": "kafka"}]
FIRST = rule("first", actions=KAFKA)
SECOND = rule("second", version=2, actions=KAFKA)


def harness_of(shard: int = 0, number: int = 0, rules: tuple[Rule, ...] = (FIRST,), **fields: Any) -> Harness:
    settings = HandleSettings(
        rules,
        dead_letter_topic="dead",
        inspection_topic="inspected",
        audit_topic="audit",
        rule_set=number,
        rules_topic="rules",
        user_shards=SHARDS,
        **fields,
    )
    harness = Harness(settings)
    # The salt is for Flink and means nothing here.
    harness.key = struct.pack(">II", shard, 77)
    return harness


def relaunched(harness: Harness, number: int, *rules: Rule) -> None:
    """The job is started anew from its checkpoint, with another initial set."""
    stored = harness_of(0, number, rules)
    harness.settings = stored.settings
    harness.restore()


def fired(harness: Harness, fn: _HandleFn) -> tuple[str, str, str]:
    """Rule, version and set of the headers of the one action that an event gets."""
    before = len(harness.outputs)
    harness.bundle(fn, batch(event("u1")))
    if harness.due["pending"] is not None:
        harness.fire_pending(fn)
    (produced,) = (decode_produced(output.value) for output in harness.outputs[before:] if output.tag == ACTIONS)
    headers = {name: value.decode() for name, value in produced.headers}
    return headers["rule"], headers["rule-version"], headers["rule-set"]


def records(harness: Harness, topic: str) -> list[tuple[bytes | None, dict[str, Any]]]:
    produced = [decode_produced(output.value) for output in harness.outputs if output.tag == RECORDS]
    return [(record.key, orjson.loads(record.value)) for record in produced if record.topic == topic]


@pytest.mark.parametrize("compact_bytes", [1, 10**6])
def test_a_set_holds_for_every_instance_and_over_restores(compact_bytes: int) -> None:
    harness = harness_of(compact_bytes=compact_bytes)
    assert fired(harness, harness.instance()) == ("first", "1", "0")
    harness.bundle(harness.instance(), published(3, SECOND))
    assert fired(harness, harness.instance()) == ("second", "2", "3")
    harness.restore()
    assert fired(harness, harness.instance()) == ("second", "2", "3")


def test_a_set_in_a_bundle_that_fails_is_not_live() -> None:
    harness = harness_of()
    fn = harness.instance()
    harness.bundle(fn, published(3, SECOND), fail=True)
    assert fired(harness, fn) == ("first", "1", "0")
    harness.bundle(fn, published(3, SECOND))
    assert fired(harness, fn) == ("second", "2", "3")


def test_the_higher_of_the_kept_and_the_launched_set_is_live() -> None:
    harness = harness_of()
    harness.bundle(harness.instance(), published(3, SECOND))
    relaunched(harness, 2, FIRST)
    assert fired(harness, harness.instance()) == ("second", "2", "3")
    relaunched(harness, 4, FIRST)
    assert fired(harness, harness.instance()) == ("first", "1", "4")


def test_a_shard_without_users_remembers_its_set() -> None:
    harness = harness_of()
    fn = harness.instance()
    harness.bundle(fn, published(3, SECOND))
    assert harness.due == {"idle": None, "pending": None, "stream": None}
    fired(harness, fn)
    harness.bundle(fn, control({"forget": "u1"}))
    harness.restore()
    harness.now_ms += 10**9
    harness.bundle(harness.instance(), timer="idle")
    harness.restore()
    assert harness.folded_state(100).users == {}
    assert fired(harness, harness.instance()) == ("second", "2", "3")


def test_each_shard_acknowledges_each_set_once() -> None:
    harness = harness_of(shard=3)
    fn = harness.instance()
    for number in (2, 1, 2, 5):
        harness.bundle(fn, published(number, FIRST))
    assert records(harness, "audit") == [
        (b"rules-3", {"audit": "rules", "number": 2, "shard": 3, "shards": SHARDS, "time": harness.now_ms}),
        (b"rules-3", {"audit": "rules", "number": 5, "shard": 3, "shards": SHARDS, "time": harness.now_ms}),
    ]
    assert records(harness, "dead") == []


def test_only_the_first_shard_publishes_what_no_shard_can_use() -> None:
    rejected: list[tuple[int, str]] = []
    broken = MicroBatch(VERSION, CONTROL, "rules", [Record(0, 7, 5, b"set-9", b'{"rules": {"number": 9}}')])
    elsewhere = published(9, FIRST, topic="control")
    for shard in range(SHARDS):
        harness = harness_of(shard)
        harness.bundle(harness.instance(), broken, elsewhere)
        rejected += [(shard, letter["topic"]) for _, letter in records(harness, "dead")]
        assert records(harness, "audit") == []
        assert fired(harness, harness.instance()) == ("first", "1", "0")
    assert rejected == [(0, "rules"), (0, "control")]


def test_what_only_one_shard_gets_is_published_by_that_shard() -> None:
    harness = harness_of(shard=2)
    wrong = MicroBatch(VERSION, CONTROL, "rules", [Record(0, 7, 5, None, b'{"forget": "u1"}')])
    harness.bundle(harness.instance(), wrong, control({"forget": "u1", "more": 1}))
    assert [letter["topic"] for _, letter in records(harness, "dead")] == ["rules", "control"]


def test_a_group_picks_when_the_stream_timer_fires_also_after_a_restore() -> None:
    groups = {"mail": {"cap": {"count": 1, "per": "day"}, "within": "2m"}}
    low = rule("low", actions=KAFKA, group="mail", priority=1)
    high = rule("high", 'event.event_name == "buy"', actions=KAFKA, group="mail", priority=9)
    harness = harness_of(rules=grouped(groups, low, high))
    harness.bundle(harness.instance(), batch(event("u1")))
    if harness.due["pending"] is not None:
        harness.fire_pending(harness.instance())
    harness.restore()
    harness.bundle(harness.instance(), batch(event("u1", event_name="buy", timestamp=NOW_MS + 60_000)))
    assert [output.tag for output in harness.outputs] == []
    assert harness.due["stream"] is not None
    assert NOW_MS + 120_000 <= harness.due["stream"] <= NOW_MS + 180_000
    harness.bundle(harness.instance(), timer="stream")
    (produced,) = (decode_produced(output.value) for output in harness.outputs if output.tag == ACTIONS)
    assert dict(produced.headers)["rule"] == b"high"
