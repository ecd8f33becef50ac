"""``HandleEvents`` against the oracle as in test_step_oracle, through Beam's state cache, bundles and bytes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS
from tests.examples import examples
from tests.oracle import SeenAction
from tests.transforms.domain.shard.test_step_oracle import LIMITS, POLICIES, SESSIONS, USERS, Both
from tests.transforms.harness import Harness
from transforms.domain.events.micro_batch import MicroBatch
from transforms.domain.events.record import decode_produced
from transforms.domain.rules.model import Rule
from transforms.domain.shard import journal
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step_input import Answer, ShardSettings
from transforms.domain.users.fetched_user import FetchedUser
from transforms.handle_events import ACTIONS, DEBUG, HandleSettings, _HandleFn


class ScriptedPool:
    """A ``FetchPool`` whose answers come when the test says so."""

    def __init__(self) -> None:
        self.requested: set[str] = set()
        self.answers: dict[str, FetchedUser] = {}

    def request(self, user_id: str, now_ms: int = 0) -> int:
        self.requested.add(user_id)
        return now_ms

    def poll(self, user_ids: Iterable[str], now_ms: int = 0) -> list[tuple[str, FetchedUser]]:
        answered = [user_id for user_id in user_ids if user_id in self.answers]
        self.requested.difference_update(answered)
        return [(user_id, self.answers.pop(user_id)) for user_id in answered]

    def restart(self, user_ids: Iterable[str], now_ms: int = 0) -> None:
        self.requested.update(user_ids)

    def withdraw(self, user_id: str) -> bool:
        return user_id not in self.requested

    def cancel(self, user_id: str) -> None:
        self.requested.discard(user_id)


class Letter(dict[str, Any]):
    """A dead letter as it was produced."""

    def to_json(self) -> bytes:
        return orjson.dumps(self)


class HarnessShard:
    """What ``builders.Shard`` offers, over DoFn instances that take turns on one key."""

    def __init__(self, compact_bytes: int, *rules: Rule, **limits: Any) -> None:
        self.settings = ShardSettings(**limits)
        self.harness = Harness(
            HandleSettings(
                rules,
                self.settings,
                dead_letter_topic="dead",
                inspection_topic="inspected",
                audit_topic="audit",
                compact_bytes=compact_bytes,
            )
        )
        self.now_ms = NOW_MS
        self.pool = ScriptedPool()
        self.instances = itertools.cycle([self._instance(), self._instance()])

    def _instance(self) -> _HandleFn:
        fn = self.harness.instance()
        fn._services.fetch_pool = self.pool  # type: ignore[assignment]
        return fn

    @property
    def state(self) -> ShardState:
        return self.harness.folded_state(self.settings.history_size)

    @property
    def fetch_started_ms(self) -> dict[str, int]:
        state = self.state
        return dict.fromkeys(
            (user_id for user_id in self.pool.requested if user_id in state.users or user_id in state.parked), 0
        )

    def step(
        self, batch: MicroBatch | None = None, answers: Sequence[Answer] = (), now_ms: int | None = None
    ) -> SimpleNamespace:
        self.now_ms = self.harness.now_ms = self.now_ms if now_ms is None else now_ms
        self.pool.answers = {
            answer.user_id: answer.fetched for answer in answers if answer.user_id in self.pool.requested
        }
        self.harness.outputs.clear()
        fn = next(self.instances)
        if batch is not None:
            self.harness.bundle(fn, batch)
        else:
            self.harness.bundle(fn, timer="pending")
        produced = [
            (output.tag, decode_produced(output.value)) for output in self.harness.outputs if output.tag != DEBUG
        ]
        seen = [SeenAction.of_kafka(record.value, record.headers) for tag, record in produced if tag == ACTIONS]
        return SimpleNamespace(
            actions=[
                SimpleNamespace(
                    body=orjson.dumps(action.body),
                    rule=action.rule,
                    rule_version=action.version,
                    action_id=action.action_id,
                )
                for action in seen
            ],
            dead_letters=[Letter(orjson.loads(record.value)) for _, record in produced if record.topic == "dead"],
            counts=Counter(fn._services.metrics.counts),
        )

    def restore(self) -> None:
        self.harness.restore()
        self.pool.requested.clear()
        if self.state.parked:  # then their timer was set, and fires
            self.harness.now_ms = self.now_ms
            self.harness.bundle(next(self.instances), timer="pending")

    def inspect(self, user_id: str) -> dict[str, Any]:
        self.harness.now_ms = self.now_ms
        return self.harness.state(next(self.instances), user_id)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One user a step: a rewrite of the journal takes several."""
    monkeypatch.setattr(journal, "_CHUNK_BYTES", 1)


@examples(150, same=75)
@given(st.sampled_from(POLICIES), LIMITS, SESSIONS, st.sampled_from([1, 10**6]))
def test_any_interleaving_gives_the_actions_and_states_of_the_oracle(
    policies: tuple[str, ...], limits: dict[str, Any], session: list[tuple[Any, ...]], compact_bytes: int
) -> None:
    both = Both({}, policies, make=partial(HarnessShard, compact_bytes), **limits)
    for name, *arguments in session:
        getattr(both, name)(*arguments)
    both.check(USERS)
    both.wait(150)
    both.check(USERS)
