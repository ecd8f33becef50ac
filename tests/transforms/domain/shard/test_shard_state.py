"""Replaying a journal gives the view that wrote it, whatever happened and whenever it was compacted."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import (
    MemoryBag,
    Shard,
    batch,
    contents,
    control,
    event,
    fetched,
    filter_set,
    published,
    random_stream,
    record,
    rule,
    rule_sets,
    sample_rules,
    user_api_of,
)
from tests.examples import examples
from tests.oracle import UNAVAILABLE
from transforms.domain.events.micro_batch import MicroBatch
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard import journal
from transforms.domain.shard.facts import RuleSetReplaced, decode_facts
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step_input import Answer

USERS = [f"user-{number:04d}" for number in range(9)]

# Whatever rules may remember, with times as short as those of the test.
REMEMBERING = (
    rule("cooldown", 'event.event_name == "click"', cooldown={"time": "1s", "key": "event.triggerable"}),
    rule("cap", 'event.event_name == "page_view"', cap={"count": 2, "window": "1s"}),
    rule("day", cap={"count": 1, "per": "day"}),
    rule("held", 'event.event_name == "checkout"', quiet_hours={"start": "00:00", "end": "23:59"}),
    rule(
        "sequence",
        'event.event_name == "page_view"',
        sequence={"not_followed_by": 'event.event_name == "checkout"', "within": "1s", "match": "triggerable"},
    ),
    rule("follow", 'event.event_name == "click"', sequence={"followed_by": "event.triggerable", "within": "2s"}),
)


class JournaledShard(Shard):
    """A shard that can tell what a restore would find."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(*sample_rules(), *REMEMBERING, **settings)

    def take(self, batch: MicroBatch | None = None, *answers: Answer, stream_ms: int | None = None) -> None:
        self.step(batch, answers, stream_ms=stream_ms)

    def replayed(self) -> ShardState:
        return Journal([MemoryBag(bag.stored) for bag in self.bags], self.settings.history_size).folded.state


STEPS = st.lists(
    st.sampled_from(
        ["events", "answer"] * 4 + ["wait", "restore", "stream"] * 2 + ["fail", "forget", "night", "rules"]
    ),
    min_size=30,
    max_size=60,
)


@pytest.mark.slow
@examples(80, same=20)
@given(st.integers(0, 2**32), STEPS, st.sampled_from([3, 100]), st.sampled_from([1, 1500, 10**6]), st.booleans())
def test_a_replayed_view_equals_the_live_one_after_every_step(
    seed: int, steps: list[str], history_size: int, compact_bytes: int, waits: bool
) -> None:
    chance = random.Random(seed)
    api = user_api_of(USERS, seed % 50)
    stream = list(random_stream(seed % 1000, len(USERS), 400, poison=False))
    stream_ms = 0
    shard = JournaledShard(
        history_size=history_size,
        ttl_ms=500,
        enrichment_deadline_ms=100,
        enrichment_retry_ms=20,
        profile_max_age_ms=50,
        history_fields=("platform", "parameters"),
        compact_bytes=compact_bytes,
        max_user_bytes=700,
        max_waiting_bytes=3000,
        allowed_lateness_ms=500,
    )
    sets = rule_sets(RuleSet(0, (*sample_rules(), *REMEMBERING)), "rules")
    sets.initial.filters.waits = waits
    shard.filters = sets
    number = 0
    for what in steps:
        if what == "events":
            count = chance.randint(1, 8)
            shard.take(batch(*(record(value, key) for key, value in stream[:count])))
            del stream[:count]
        elif what == "answer":
            user_id = chance.choice(USERS)
            shard.take(None, Answer(user_id, fetched(api.get(user_id), ("platform",))))
        elif what == "fail":
            shard.take(None, Answer(chance.choice(USERS), fetched(UNAVAILABLE)))
        elif what == "forget":
            shard.take(control({"forget": chance.choice(USERS)}))
        elif what == "stream":
            stream_ms = max(stream_ms + 1000, orjson.loads(stream[0][1])["timestamp"])
            shard.take(stream_ms=stream_ms)
        elif what == "rules":
            number += 1
            shard.take(published(number, *sample_rules(), *REMEMBERING))
        elif what == "night":
            shard.now_ms += 24 * 3600 * 1000
            shard.take()
        elif what == "wait":
            # Back, too: that is what clocks do when they are set.
            shard.now_ms += chance.choice((1, 60, 100, 500, -70, -70))
            shard.take()
        else:
            shard.restore()
        assert contents(shard.replayed()) == contents(shard.state)
        assert shard.replayed().nbytes == shard.state.nbytes
    for user_id in USERS:
        shard.take(control({"forget": user_id}))
    empty = ShardState(history_size)
    if shard.state.rules is None:
        assert [bag.elements for bag in shard.bags] == [[], []]
    else:
        assert shard.state.rules.number == number
        empty.apply(0, RuleSetReplaced(number, shard.state.rules.record))
    assert contents(shard.state) == contents(empty)
    assert shard.state.nbytes == empty.nbytes
    assert contents(shard.replayed()) == contents(empty)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One user a step: a rewrite of a few users takes several, and everything happens in the midst of one."""
    monkeypatch.setattr(journal, "_CHUNK_BYTES", 1)


def test_a_history_size_that_was_lowered_holds_from_the_restore_on() -> None:
    shard = JournaledShard(history_size=10)
    shard.take(batch(*(event("u1", event_id=f"e{n}") for n in range(10))))
    shard.take(None, Answer("u1", fetched(None)))
    restored = Journal([MemoryBag(bag.stored) for bag in shard.bags], 4).folded.state
    assert [row.event_id for row in restored.users["u1"].history.rows()] == ["e6", "e7", "e8", "e9"]


def test_memory_is_counted_while_users_come_change_and_go() -> None:
    shard = JournaledShard()
    shard.filters = filters = filter_set(())
    filters.waits = True
    empty = shard.state.nbytes
    shard.take(batch(event("u1")))
    parked = shard.state.nbytes
    assert parked > empty
    shard.take(None, Answer("u1", fetched({"profile": {"note": "x" * 5000}, "visit": None, "history": []})))
    loaded = shard.state.nbytes
    assert loaded > empty + 5000
    shard.take(batch(event("u1")))
    assert shard.state.nbytes > loaded
    shard.now_ms += shard.settings.ttl_ms
    shard.take()
    assert shard.state.nbytes == empty


def test_a_fact_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ValueError, match="journal fact 99: this worker knows 0 to 26; the state is of a newer release"):
        decode_facts(msgspec.msgpack.encode((0, [(99,)])))


def test_a_snapshot_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ValueError, match="snapshot version 2: this worker reads 1"):
        ShardState.of_snapshot(bytes.fromhex("93029080"), 3)


def test_inspection_shows_everything_there_is_to_know() -> None:
    shard = JournaledShard(history_fields=("platform",))
    known = {
        "profile": {"country": "US"},
        "visit": {"visit_id": "v", "start_time": 5, "page_count": 2, "is_first_visit": True},
        "history": [{"event_id": "old", "event_name": "n", "timestamp": 4, "platform": "ios"}],
    }
    assert shard.inspect("u1") == {
        "user_id": "u1",
        "found": False,
        "parked": 0,
        "last_seen": None,
        "enrichment": None,
        "userProfile": None,
        "currentVisit": None,
        "eventHistory": [],
        "ruleState": {"cooldowns": [], "caps": [], "sequences": [], "held": []},
        "deliveries": [],
    }
    shard.take(batch(event("u1", event_id="e1", platform="web"), event("u1")))
    assert shard.inspect("u1") | {"found": False, "parked": 2} == shard.inspect("u1")
    shard.take(batch(event("u2")), Answer("u1", fetched(known, ("platform",))))
    shown = shard.inspect("u1")
    assert shown["eventHistory"][:2] == [
        known["history"][0],
        {
            "event_id": "e1",
            "event_name": "page_view",
            "timestamp": shown["eventHistory"][1]["timestamp"],
            "platform": "web",
        },
    ]
    assert orjson.dumps(shown["currentVisit"]) == orjson.dumps(known["visit"])
    assert (shown["found"], shown["enrichment"], shown["userProfile"], shown["last_seen"]) == (
        True,
        "fetched",
        {"country": "US"},
        shard.now_ms,
    )
