"""20,000 events of 500 users through real Kafka and Flink: the actions and the state are the oracle's, kills or not."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Message

from runners.flink.cluster import LocalFlink
from runners.flink.kafka_broker import LocalKafka
from runners.flink.rest import FlinkRest
from tests.integration.jobs import Reader, Topics, inspect, reading, running
from tests.integration.user_api import serve_users

pytestmark = pytest.mark.stack

EVENTS, USERS, HISTORY = 20_000, 500, 100
RULES = """\
name: us_page_view
version: 3
filter: event.triggerable and user.country == "US"
actions: [{type: kafka}]
---
name: third_purchase
version: 1
filter: |
  if event.event_name ~= "purchase" then return false end
  local purchases = 0
  for _, past in ipairs(history) do
    if past.event_name == "purchase" then purchases = purchases + 1 end
  end
  return purchases == 2
actions: [{type: kafka, topic: TOPIC}]
"""


def users() -> dict[str, dict[str, Any] | None]:
    """Profiles by user; every eleventh user is unknown to the user API."""
    countries = ("US", "DE", "TR")
    return {
        f"user-{number}": {"user_id": f"user-{number}", "country": countries[number % 3]} if number % 11 else None
        for number in range(USERS)
    }


def stream(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(user, event) in the order of production; a few events come twice, a few late."""
    chance = random.Random(seed)
    last: dict[str, dict[str, Any]] = {}
    for number in range(EVENTS):
        user = f"user-{min(int(chance.expovariate(1 / 120)), USERS - 1)}"
        if user in last and chance.random() < 0.01:
            yield user, last[user]
            continue
        last[user] = {
            "event_id": f"e{number}",
            "user_id": user,
            "event_name": chance.choice(("page_view", "page_view", "add_to_cart", "purchase")),
            "timestamp": 1_700_000_000_000 + number * 10 - (5_000 if chance.random() < 0.02 else 0),
            "triggerable": chance.random() < 0.3,
            "event_type": "pageview",
        }
        yield user, last[user]


class Oracle:
    """What should happen, in plain Python; shares no code with the pipeline."""

    def __init__(self, profiles: dict[str, dict[str, Any] | None]) -> None:
        self.profiles = profiles
        self.history: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.expected: dict[str, list[tuple[str, str, list[str]]]] = defaultdict(list)  # user: (rule, event, history)
        self.duplicates = 0

    def feed(self, user: str, event: dict[str, Any]) -> None:
        history = self.history[user]
        ids = [past["event_id"] for past in history]
        if event["event_id"] in ids:
            self.duplicates += 1
            return
        profile = self.profiles[user] or {}
        if event["triggerable"] and profile.get("country") == "US":
            self.expected[user].append(("us_page_view", event["event_id"], ids))
        purchases = sum(past["event_name"] == "purchase" for past in history)
        if event["event_name"] == "purchase" and purchases == 2:
            self.expected[user].append(("third_purchase", event["event_id"], ids))
        history.append({name: event[name] for name in ("event_id", "event_name", "timestamp")})
        history.sort(key=lambda past: past["timestamp"])  # stable: ties stay in the order of arrival
        del history[:-HISTORY]

    def count(self) -> int:
        return sum(map(len, self.expected.values()))


def got(messages: list[Message]) -> dict[str, list[tuple[str, str, list[str]]]]:
    """The actions of a topic by user, in the order of the topic: (rule, event, history)."""
    found: dict[str, list[tuple[str, str, list[str]]]] = defaultdict(list)
    for message in messages:
        body = orjson.loads(message.value())
        rule = dict(message.headers())["rule"].decode()
        found[message.key().decode()].append(
            (rule, body["event"]["event_id"], [past["event_id"] for past in body["eventHistory"]])
        )
    return found


def check(oracle: Oracle, actions: Reader, states: dict[str, Any]) -> None:
    """Actions as multisets with order per user, identities unique, states equal."""
    assert got(actions.settle()) == oracle.expected
    ids = [dict(message.headers())["action-id"] for message in actions.messages]
    assert len(set(ids)) == len(ids)
    for user, state in states.items():
        assert state["eventHistory"] == oracle.history[user]
        profile = oracle.profiles[user]
        assert state["userProfile"] == (profile if profile is not None else {"enrichment": "unknown"})
        assert state["parked"] == 0


@pytest.fixture
def oracle() -> Oracle:
    model = Oracle(users())
    for user, event in stream(7):
        model.feed(user, event)
    return model


def rule_file(tmp_path: Path, topics: Topics) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES.replace("TOPIC", topics.actions))
    return path


def records(seed: int) -> Iterator[tuple[bytes, bytes]]:
    for user, event in stream(seed):
        yield user.encode(), orjson.dumps(event)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("user_shards", [128, 0], ids=["by-user-shard", "by-user"])
def test_actions_and_state_are_the_oracles(
    kafka: LocalKafka, flink: LocalFlink, tmp_path: Path, oracle: Oracle, user_shards: int
) -> None:
    topics = Topics(kafka)
    topics.produce(records(7))
    with (
        serve_users(oracle.profiles) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            rule_file(tmp_path, topics),
            f"--user_shards={user_shards}",
            f"--user_api_url={api}",
            f"--control_topic={topics.control}",
            "--parallelism=2",
            "--delivery_guarantee=EXACTLY_ONCE",
            "--checkpointing_interval_ms=2000",
        ),
    ):
        actions.until(oracle.count(), 120)
        check(oracle, actions, inspect(topics, inspections, list(oracle.history)))


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_repeated_when_a_task_manager_is_killed(
    kafka: LocalKafka, tmp_path: Path, oracle: Oracle
) -> None:
    """Two TaskManagers, one dies: the other's worker goes on living and its state comes back under a new cache token.

    Both subtasks of a TaskManager share a worker, and shards are compacted all the time.
    """
    topics = Topics(kafka)
    with (
        LocalFlink(
            task_managers=2, slots=2, config={"restart-strategy.exponential-delay.initial-backoff": "500 ms"}
        ) as flink,
        serve_users(oracle.profiles) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            rule_file(tmp_path, topics),
            f"--user_api_url={api}",
            f"--control_topic={topics.control}",
            "--user_shards=16",
            "--compact_bytes=2000",
            "--parallelism=4",
            "--workers_per_task_manager=1",
            "--delivery_guarantee=EXACTLY_ONCE",
            "--checkpointing_interval_ms=1000",
        ) as job_id,
    ):
        rest = FlinkRest(flink.rest_url)
        producer = threading.Thread(target=_produce_slowly, args=(topics, 12.0))
        producer.start()
        for kill in range(2):
            done = rest.checkpoints(job_id)["counts"]["completed"]
            rest.wait_for_checkpoint(job_id, done + 2, 60)
            survivor = flink.task_manager_pids[1]
            workers = _children(survivor)
            flink.kill_task_manager(0)
            flink.start_task_manager()
            _wait_for_restart(rest, job_id, kill + 1)
            assert _children(survivor) == workers, "the test means to restore under a living worker"
        producer.join()
        actions.until(oracle.count(), 120)
        check(oracle, actions, inspect(topics, inspections, list(oracle.history)))


def _children(pid: int) -> set[int]:
    """Child processes: of a TaskManager, its Python workers."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(int(entry.name))
    return found


def _produce_slowly(topics: Topics, seconds: float) -> None:
    made = list(records(7))
    started = time.monotonic()
    for first in range(0, len(made), 200):
        topics.produce(made[first : first + 200])
        pace = started + seconds * first / len(made) - time.monotonic()
        threading.Event().wait(max(0.0, pace))


def _wait_for_restart(rest: FlinkRest, job_id: str, restored: int) -> None:
    deadline = time.monotonic() + 90
    while rest.checkpoints(job_id)["counts"]["restored"] < restored:
        assert time.monotonic() < deadline, rest.exceptions(job_id).get("root-exception")
        time.sleep(0.2)
    rest.wait_for_state(job_id, {"RUNNING"}, 60)
