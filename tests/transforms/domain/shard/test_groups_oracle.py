"""Groups against a model that is written from docs/rules.md, "Groups", alone and shares no code with the domain.

Random events of many users come shuffled and late, in random batches. Workers are killed: a shard goes back to a
checkpoint and handles the same records again, in other batches and at another time. Users are suppressed, and the rules
change in the middle. After each step the decisions of both must be the same.

By hand, with 200,000 events of 2,000 users: ``python -m tests.transforms.domain.shard.test_groups_oracle``.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, MemoryBag, Shard, batch, control, fetched, published, rule_sets
from tests.groups_model import (
    DAY,
    HOUR,
    LATENESS,
    MINUTE,
    SECOND,
    Line,
    Model,
    Says,
    Shares,
    first_set,
    records_of,
    rules_of,
    second_set,
)
from transforms.domain.events.record import Record
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.step_input import Answer

START = NOW_MS - NOW_MS % DAY


class Both:
    """A shard and the model, which get the same."""

    def __init__(self, users: int) -> None:
        rules, groups = first_set()
        self.model = Model(rules, groups)
        filters = rule_sets(RuleSet(0, rules_of(rules, groups, 1)), "rules")
        self.shard = Shard(filters=filters, ttl_ms=10 * MINUTE, allowed_lateness_ms=LATENESS, decision_sample=0.0)
        self.sent: list[Line] = []
        self.users = users

    def step(self, now: int, records: Sequence[Record] = (), stream: int | None = None) -> None:
        self.shard.now_ms = now
        self.model.begin(now)
        for record in records:
            made = orjson.loads(record.value)
            t = min(made["timestamp"], record.timestamp_ms)
            self.model.event(made["user_id"], made["event_id"], made["event_name"], t, record.timestamp_ms)
        if stream is not None:
            self.model.pass_stream(stream)
        self._compare(self._take(batch(*records) if records else None, stream))

    def control(self, now: int, document: Any) -> None:
        self.shard.now_ms = now
        self.model.begin(now)
        user = self.model.users[document.get("suppress") or document["unsuppress"]]
        if "suppress" in document:
            user.suppressed[document["group"]] = document["until"] or 0
        else:
            user.suppressed.pop(document["group"], None)
        self._compare(self._take(control(document), None))

    def publish(self, now: int, rules: list[Says], groups: dict[str, Shares]) -> None:
        self.shard.now_ms = now
        self.model.begin(now)
        self.model.change(rules, groups)
        self._compare(self._take(published(1, *rules_of(rules, groups, 2)), None))

    def _take(self, given: Any, stream: int | None) -> list[Line]:
        lines: list[Line] = []
        done = self.shard.step(given, stream_ms=stream)
        while True:
            assert done.dead_letters == []
            lines += [(each.decision, each.rule, each.event_id, each.winner or "") for each in done.decisions]
            if not done.users_to_fetch:
                return lines
            known = {"profile": {}, "visit": None, "history": []}
            done = self.shard.step(answers=[Answer(user_id, fetched(known)) for user_id in done.users_to_fetch])

    def _compare(self, lines: list[Line]) -> None:
        expected, self.model.lines = self.model.lines, []
        assert sorted(lines) == sorted(expected)
        self.sent += [line for line in lines if line[0] in ("fired", "released")]

    def checkpoint(self) -> Any:
        return [list(bag.stored) for bag in self.shard.bags], copy.deepcopy(self.model), list(self.sent)

    def kill(self, checkpoint: Any) -> None:
        """Go back to a checkpoint; what was decided since then is decided again."""
        stored, model, sent = checkpoint
        self.shard.bags = [MemoryBag(bag) for bag in stored]
        self.shard.journal = self.shard.open()
        self.shard.fetch_started_ms = {}
        self.model, self.sent = copy.deepcopy(model), list(sent)


def play(seed: int, users: int, events: int, kills: int = 2) -> Both:
    chance = random.Random(seed)
    records = list(records_of(chance, users, events, START))
    both, at, now, is_changed = Both(users), 0, START, False
    kill_at = sorted(chance.sample(range(events), kills))
    saved = both.checkpoint(), 0, False
    save_every = max(1, events // 10)
    next_save = save_every
    while at < events:
        size = min(chance.randint(1, 1 + max(10, users // 5)), events - at)
        part = records[at : at + size]
        now = max(now, part[-1].timestamp_ms + chance.randint(0, 5 * SECOND))
        both.step(now, part)
        at += size
        if chance.random() < 0.5:
            both.step(now, stream=part[-1].timestamp_ms)
        if chance.random() < 0.1:
            user, group = f"user-{chance.randrange(users)}", chance.choice(("*", "now", "soon", "daily"))
            until = chance.choice((None, now + chance.randint(1, 5 * HOUR)))
            kind = chance.choice(("suppress", "unsuppress"))
            both.control(now, {kind: user, "group": group, **({"until": until} if kind == "suppress" else {})})
        if not is_changed and at > events // 2:
            both.model.check_caps()
            both.publish(now, *second_set())
            is_changed = True
        if at >= next_save:
            saved = both.checkpoint(), at, is_changed
            next_save += save_every
        if kill_at and at > kill_at[0]:
            del kill_at[0]
            both.kill(saved[0])
            at, is_changed, now = saved[1], saved[2], now + chance.randint(0, 10 * MINUTE)
    both.step(now + HOUR, stream=records[-1].timestamp_ms + HOUR)
    return both


@pytest.mark.parametrize("seed", range(4))
def test_decisions_are_those_of_the_model(seed: int) -> None:
    both = play(seed, users=8, events=500)
    assert len(both.sent) > 100


def test_a_replay_in_other_batches_picks_the_same_winners() -> None:
    """Of rules without quiet hours, which go by processing time, and without expiry."""
    chance = random.Random(7)
    records = list(records_of(chance, 5, 300, START))
    rules, groups = first_set()
    rules = [each for each in rules if each.group in ("soon", "daily")]
    for each in rules:
        each.quiet, each.expires = None, 0
    picked = set()
    for number in range(4):
        both = Both(5)
        both.model = Model(rules, groups)
        both.shard.filters = rule_sets(RuleSet(0, rules_of(rules, groups, 1)), "rules")
        at, now = 0, START
        while at < len(records):
            size = 1 if number == 0 else chance.randint(1, 60)
            part = records[at : at + size]
            now = max(now, part[-1].timestamp_ms) + number * HOUR
            both.step(now, part)
            at += size
            if number < 3 or at >= len(records):
                both.step(now, stream=part[-1].timestamp_ms)
        both.step(now, stream=records[-1].timestamp_ms + HOUR)
        picked.add(tuple(sorted(both.sent)))
    assert len(picked) == 1


if __name__ == "__main__":
    started_s = time.monotonic()
    events, users = int([*sys.argv, "200000"][1]), 2000
    both = play(random.randrange(10**6), users, events)
    print(f"{events:,} events of {users:,} users: {len(both.sent):,} actions, {time.monotonic() - started_s:.0f} s")
