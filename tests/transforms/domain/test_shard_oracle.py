"""``shard.step`` against the oracle: whatever the batches, answers, times and restores, the same actions and states."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import (
    NOW_MS,
    Shard,
    batch,
    control,
    fetched,
    oracle_rules,
    random_stream,
    record,
    sample_rules,
    user_api_of,
)
from tests.oracle import (
    UNAVAILABLE,
    Oracle,
    SeenAction,
    action_differences,
    dead_letter_differences,
    state_differences,
)
from transforms.domain.shard import Answer, Step
from transforms.domain.view import View

USERS = [f"user-{number:04d}" for number in range(6)]


class Both:
    """A shard and an oracle that are told the same."""

    def __init__(self, api: dict[str, Any], **limits: Any) -> None:
        self.api = api
        self.shard = Shard(*sample_rules("kafka"), **limits)
        sizes = {"deadline_ms" if name == "enrichment_deadline_ms" else name: value for name, value in limits.items()}
        self.oracle = Oracle(oracle_rules(), api, answers_at_once=False, **sizes)
        self.oracle.now_ms = NOW_MS
        self.now_ms = NOW_MS
        self.seen: list[SeenAction] = []
        self.letters: list[dict[str, Any]] = []
        self.counts: dict[str, int] = {}

    def events(self, *records: tuple[bytes, bytes]) -> None:
        self._see(self.shard.step(batch(*(record(value, key) for key, value in records)), now_ms=self.now_ms))
        for key, value in records:
            self.oracle.feed(key, value, self.now_ms)
        self.oracle.pass_time(self.now_ms)

    def answer(self, user_id: str) -> None:
        known = fetched(self.api.get(user_id), self.shard.settings.history_fields)
        self._see(self.shard.step(answers=[Answer(user_id, known)], now_ms=self.now_ms))
        self.oracle.answer(user_id, self.now_ms)
        self.oracle.pass_time(self.now_ms)

    def forget(self, user_id: str) -> None:
        self._see(self.shard.step(control({"forget": user_id}), now_ms=self.now_ms))
        self.oracle.forget(user_id)
        self.oracle.pass_time(self.now_ms)

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self._see(self.shard.step(now_ms=self.now_ms))
        self.oracle.pass_time(self.now_ms)

    def restore(self) -> None:
        self.shard.view = View.restore(self.shard.view.snapshot(), self.shard.settings.history_size)

    def check(self, users: list[str]) -> None:
        assert action_differences(self.oracle, self.seen) == []
        assert dead_letter_differences(self.oracle, self.letters) == []
        assert state_differences(self.oracle, {user: self.shard.inspect(user) for user in users}) == []
        assert self.counts.get("events_handled", 0) == self.oracle.handled
        assert self.counts.get("duplicates", 0) == len(self.oracle.duplicates)

    def _see(self, done: Step) -> None:
        self.seen += [
            SeenAction(orjson.loads(one.body), one.rule, one.rule_version, one.action_id) for one in done.actions
        ]
        self.letters += [orjson.loads(letter.to_json()) for letter in done.dead_letters]
        for name, count in done.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([3, 5, 100]))
def test_any_interleaving_gives_the_actions_and_states_of_the_oracle(seed: int, history_size: int) -> None:
    chance = random.Random(seed)
    api = user_api_of(USERS, chance.randrange(100))
    api[USERS[0]] = UNAVAILABLE
    both = Both(api, history_size=history_size, ttl_ms=1000, enrichment_deadline_ms=150, history_fields=("platform",))
    records = list(random_stream(chance.randrange(10_000), len(USERS), 80))
    while records:
        what = chance.randrange(10)
        if what < 5:
            taken = chance.randint(1, 12)
            both.events(*records[:taken])
            del records[:taken]
        elif what < 7:
            both.answer(chance.choice(USERS))
        elif what == 7:
            both.wait(chance.choice((1, 40, 150, 999, 1000)))
        elif what == 8:
            both.restore()
        else:
            both.forget(chance.choice(USERS))
    both.wait(150)
    both.check(USERS)


@pytest.mark.parametrize("history_size", [100, 10])
def test_a_long_stream_gives_what_the_oracle_says(history_size: int) -> None:
    users = [f"user-{number:04d}" for number in range(30)]
    both = Both(user_api_of(users), history_size=history_size)
    records = list(random_stream(5, len(users), 3000))
    for start in range(0, len(records), 100):
        both.events(*records[start : start + 100])
        for user_id in list(both.oracle.waiting):
            both.answer(user_id)
    both.check(users)
    assert len(both.seen) > 1000
    assert {one.rule for one in both.seen} == {rule.name for rule in both.oracle.rules}


def test_the_comparison_notices_each_kind_of_difference() -> None:
    both = Both({})
    both.events(*random_stream(1, 3, 60, poison=False))
    for user_id in list(both.oracle.waiting):
        both.answer(user_id)
    both.check([])
    seen = both.seen
    other = SeenAction(seen[0].body | {"userProfile": {}}, seen[0].rule, seen[0].version, seen[0].action_id)
    swapped = next(
        [*seen[:i], seen[i + 1], seen[i], *seen[i + 2 :]]
        for i in range(len(seen) - 1)
        if seen[i].body["event"]["user_id"] == seen[i + 1].body["event"]["user_id"]
        and seen[i].body["event"]["event_id"] != seen[i + 1].body["event"]["event_id"]
    )
    for wrong in (seen[1:], [*seen, seen[0]], [other, *seen[1:]], swapped):
        assert action_differences(both.oracle, wrong)
    assert action_differences(both.oracle, [*seen, seen[0]], repeats_allowed=True) == []
    assert action_differences(both.oracle, [*seen, other], repeats_allowed=True)
    user_id = both.oracle.actions[0].user_id
    assert state_differences(both.oracle, {user_id: both.oracle.state(user_id) | {"parked": 1}})
    assert dead_letter_differences(both.oracle, [{"reason": "not_json", "key": None, "value": ""}])
