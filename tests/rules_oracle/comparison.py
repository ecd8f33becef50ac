"""Drives a shard and the oracle with the same records, and says in what they differ."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import orjson

from tests.builders import Shard, batch, fetched
from tests.oracle import UNAVAILABLE
from tests.rules_oracle.language import Json
from tests.rules_oracle.model import Action, Received, RulesOracle, User
from tests.rules_oracle.rules import documents, oracle_rules
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import action_id
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import Answer

NEVER_MS = 400 * 24 * 3600 * 1000
# What rules count, for both; the oracle does not count steps that end in vain.
COUNTED = ("fired", "held", "released", "dropped", "recheck_refused", "cooled_down", "capped", "followed", "error")


class Comparison:
    """One shard and one oracle; the shard is restored from its journal now and then."""

    def __init__(self, users: dict[str, User], seed: int, history_size: int = 100) -> None:
        self.users = users
        self.rng = random.Random(seed)
        self.oracle = RulesOracle(oracle_rules(), users, history_size=history_size)
        self.shard = Shard(
            *(Rule.model_validate(document) for document in documents()),
            history_size=history_size,
            ttl_ms=NEVER_MS,
            compact_bytes=300_000,
        )
        self.versions = {rule.name: rule.version for rule in oracle_rules()}
        self.counts: Counter[str] = Counter()
        self.letters: Counter[str] = Counter()
        self.seen: list[Json] = []
        self.restores = 0

    def run(self, records: Iterable[Received], restores: int) -> list[str]:
        """Handle all records in batches of random sizes; returns the differences, most of them one a line."""
        differences: list[str] = []
        batches = list(_batches(records, self.rng))
        restored = set(self.rng.sample(range(len(batches)), min(restores, len(batches))))
        now_ms = 0
        for number, received in enumerate(batches):
            now_ms = max([now_ms, *(record.record_ms for record in received if record.record_ms is not None)])
            self._handle(received, now_ms)
            if number in restored:
                self.shard.restore()
                self.restores += 1
            differences += self._differences(now_ms)
        now_ms += 40 * 24 * 3600 * 1000
        for _ in range(3):  # what ends now may be held, for a day and another one
            self._handle([], now_ms)
            differences += self._differences(now_ms)
            now_ms += 24 * 3600 * 1000 + 1
        return [*differences, *self._count_differences()]

    def _handle(self, received: list[Received], now_ms: int) -> None:
        self.oracle.clock_reaches(now_ms)
        self._step(batch(*map(_record, received)) if received else None, now_ms)
        for record in received:
            self.oracle.event(record, now_ms)
        self._step(None, now_ms, stream_ms=now_ms)
        self.oracle.stream_reaches(now_ms, now_ms)

    def _step(self, received: Any, now_ms: int, stream_ms: int | None = None) -> None:
        done = [self.shard.step(received, now_ms=now_ms, stream_ms=stream_ms)]
        while self.shard.fetch_started_ms:
            answers = [Answer(user_id, fetched(self._api(user_id))) for user_id in self.shard.fetch_started_ms]
            done.append(self.shard.step(answers=answers, now_ms=now_ms))
        for step in done:
            self.seen += [_shown(action.action_id, action.rule, action.body) for action in step.actions]
            self.counts.update({f"{rule}.{name}": count for (rule, name), count in step.rule_counts.items()})
            self.letters.update(letter.reason for letter in step.dead_letters)

    def _api(self, user_id: str) -> Any:
        user = self.users.get(user_id)
        if user is None or user.enrichment == "unknown":
            return None
        return UNAVAILABLE if user.enrichment == "unavailable" else {"profile": user.profile}

    def _differences(self, now_ms: int) -> list[str]:
        """What went out since the last time and should not have, or the other way round."""
        seen = Counter(orjson.dumps(action, option=orjson.OPT_SORT_KEYS) for action in self.seen)
        due = Counter(
            orjson.dumps(self._expected(action), option=orjson.OPT_SORT_KEYS) for action in self.oracle.actions
        )
        self.seen.clear()
        self.oracle.actions.clear()
        return [f"{now_ms} too much: {action.decode()}" for action in (seen - due).elements()] + [
            f"{now_ms} missing: {action.decode()}" for action in (due - seen).elements()
        ]

    def _expected(self, action: Action) -> Json:
        identity = action_id(action.user_id, action.event_id, action.rule, self.versions[action.rule], "kafka")
        return {"id": identity, "rule": action.rule, "body": action.body}

    def _count_differences(self) -> list[str]:
        names = [f"{rule.name}.{name}" for rule in oracle_rules() for name in COUNTED]
        return [
            f"count {name}: {self.counts[name]}, expected {self.oracle.counts[name]}"
            for name in names
            if self.counts[name] != self.oracle.counts[name]
        ]


def _record(received: Received) -> Record:
    record_ms = -1 if received.record_ms is None else received.record_ms
    return Record(0, 0, record_ms, received.user_id.encode(), orjson.dumps(received.event))


def _shown(identity: str, rule: str, body: bytes) -> Json:
    """An action as it can be compared: of an enriched event only the event and the profile."""
    value = orjson.loads(body)
    if {"event", "userProfile"} <= value.keys():
        value = {name: value[name] for name in ("event", "userProfile")}
    return {"id": identity, "rule": rule, "body": value}


def _batches(records: Iterable[Received], rng: random.Random) -> Iterator[list[Received]]:
    rest = iter(records)
    while received := list(islice(rest, rng.choice((1, 1, 2, 5, 30)))):
        yield received
