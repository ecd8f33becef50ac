"""Replaying a journal gives the view that wrote it, whatever happened and whenever it was compacted."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import Shard, batch, control, event, fetched, random_stream, record, sample_rules, user_api_of
from transforms.domain import journal as journals
from transforms.domain.batches import MicroBatch
from transforms.domain.history import public_rows
from transforms.domain.journal import JournalElement, JournalEntry, JournalHead
from transforms.domain.shard import Answer
from transforms.domain.view import View

USERS = [f"user-{number:04d}" for number in range(5)]


class JournaledShard(Shard):
    """A shard with the journal that ``transforms.handle`` keeps: elements are objects until they are committed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(*sample_rules(), **settings)
        self.elements: list[JournalElement] = [JournalHead(b"", self.view)]

    def take(self, batch: MicroBatch | None = None, *answers: Answer) -> None:
        done = self.step(batch, answers)
        if done.facts:
            self.elements.append(JournalEntry(journals.pack_entry(self.now_ms, done.facts)))

    def compact(self) -> None:
        self.elements = [JournalHead(self.view.snapshot(), self.view)]

    def replayed(self) -> View:
        stored = [journals.encode_element(element) for element in self.elements]
        decoded = [journals.decode_element(element) for element in stored]
        return journals.fold(decoded, self.settings.history_size)[1]


def contents(view: View) -> dict[str, Any]:
    """All that a view holds."""
    return {
        "users": [
            (
                user_id,
                user.last_seen_ms,
                user.enrichment,
                user.profile_json,
                user.visit,
                user.history.limit,
                public_rows(user.history.rows()),
            )
            for user_id, user in view.users.items()
        ],
        "parked": {user_id: (one.deadline_ms, list(one.records)) for user_id, one in view.parked.items()},
    }


STEPS = st.lists(
    st.sampled_from(["events", "events", "events", "answer", "answer", "forget", "wait", "compact"]), max_size=25
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), STEPS, st.sampled_from([3, 100]))
def test_a_replayed_view_equals_the_live_one_after_every_step(seed: int, steps: list[str], history_size: int) -> None:
    chance = random.Random(seed)
    api = user_api_of(USERS, seed % 50)
    stream = list(random_stream(seed % 1000, len(USERS), 200))
    shard = JournaledShard(
        history_size=history_size, ttl_ms=500, enrichment_deadline_ms=100, history_fields=("platform", "parameters")
    )
    for what in steps:
        if what == "events":
            count = chance.randint(1, 8)
            shard.take(batch(*(record(value, key) for key, value in stream[:count])))
            del stream[:count]
        elif what == "answer":
            user_id = chance.choice(USERS)
            shard.take(None, Answer(user_id, fetched(api.get(user_id), ("platform",))))
        elif what == "forget":
            shard.take(control({"forget": chance.choice(USERS)}))
        elif what == "wait":
            shard.now_ms += chance.choice((1, 60, 100, 500))
            shard.take()
        else:
            shard.compact()
        assert contents(shard.replayed()) == contents(shard.view)
    for user_id in USERS:
        shard.take(control({"forget": user_id}))
    assert contents(shard.view) == {"users": [], "parked": {}}
    assert shard.view.nbytes == View(1).nbytes == shard.replayed().nbytes


def test_batches_after_a_compaction_are_not_counted_twice() -> None:
    # The head of a compaction is encoded when the bundle commits: by then its view knows later batches too.
    shard = JournaledShard()
    shard.take(batch(event("u1"), event("u1")))
    shard.take(None, Answer("u1", fetched(None)))
    shard.compact()
    shard.take(batch(event("u1", event_type="pageview")))
    shard.take(batch(event("u1", event_type="pageview"), event("u2")))
    replayed = shard.replayed()
    assert contents(replayed) == contents(shard.view)
    assert len(replayed.users["u1"].history) == 4
    assert replayed.users["u1"].visit.page_count == 2  # type: ignore[union-attr]


def test_a_snapshot_of_nothing_is_restored_to_nothing() -> None:
    assert contents(View.restore(View(7).snapshot(), 7)) == contents(View.restore(b"", 7)) == contents(View(7))


def test_a_history_size_that_was_lowered_holds_from_the_restore_on() -> None:
    shard = JournaledShard(history_size=10)
    shard.take(batch(*(event("u1", event_id=f"e{n}") for n in range(10))))
    shard.take(None, Answer("u1", fetched(None)))
    restored = View.restore(shard.view.snapshot(), 4)
    assert [row[1] for row in restored.users["u1"].history.rows()] == ["e6", "e7", "e8", "e9"]


def test_memory_is_counted_while_users_come_change_and_go() -> None:
    view = JournaledShard()
    empty = view.view.nbytes
    view.take(batch(event("u1")))
    parked = view.view.nbytes
    assert parked > empty
    view.take(None, Answer("u1", fetched({"profile": {"note": "x" * 5000}, "visit": None, "history": []})))
    loaded = view.view.nbytes
    assert loaded > empty + 5000
    view.take(batch(event("u1")))
    assert view.view.nbytes > loaded
    view.now_ms += view.settings.ttl_ms
    view.take()
    assert view.view.nbytes == empty


def test_a_fact_of_a_newer_release_is_refused() -> None:
    with pytest.raises(ValueError, match="journal fact 99: this worker knows 0 to 5; the state is of a newer release"):
        View(3).apply(0, (99,))


def test_a_snapshot_of_a_newer_release_is_refused() -> None:
    snapshot = bytearray(View(3).snapshot())
    assert snapshot[1] == 1
    snapshot[1] = 2
    with pytest.raises(ValueError, match="snapshot version 2: this worker reads 1"):
        View.restore(bytes(snapshot), 3)


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
