"""20,000 events of 500 users through real Kafka and Flink: outputs and state are the oracle's."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from confluent_kafka import Message

from runners.flink.local.broker import LocalKafka
from runners.flink.rest import FlinkRest
from tests.builders import oracle_of, random_stream, rule_documents, user_api_of
from tests.flink_cluster import FlinkCluster, running_since, wait_for_checkpoint, wait_for_recovery
from tests.integration.jobs import PATIENT, Reader, Topics, inspect, reading, running
from tests.integration.user_api import serve_users
from tests.oracle import Oracle, SeenAction, action_differences, dead_letter_differences, state_differences

pytestmark = pytest.mark.stack

RECORDS = tuple(random_stream(seed=7, users=500, events=20_000))
USERS = tuple(f"user-{number:04d}" for number in range(500))


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return oracle_of(RECORDS, user_api_of(USERS))


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump_all(rule_documents("kafka")))
    return path


def check(oracle: Oracle, topics: Topics, actions: Reader, dead_letters: Reader, inspections: Reader) -> None:
    """Actions: which, with what bodies, in what order for each user, each once. Dead letters. Every user's state."""
    actions.until(len(oracle.actions), 240)
    seen = [SeenAction.of_kafka(message.value(), message.headers()) for message in actions.settle()]
    assert action_differences(oracle, seen) == []
    assert dead_letter_differences(oracle, letters(dead_letters.settle(1))) == []
    assert state_differences(oracle, inspect(topics, inspections, USERS)) == []


def letters(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Dead letters by partition and offset: they come at least once, so one may come again after a kill."""
    found = {
        (dead_letter["partition"], dead_letter["offset"]): dead_letter
        for dead_letter in (orjson.loads(message.value()) for message in messages)
    }
    return list(found.values())


@pytest.mark.parametrize("user_shards", [128, 0], ids=["by-user-shard", "by-user"])
def test_actions_dead_letters_and_state_are_the_oracles(
    kafka: LocalKafka, flink: FlinkCluster, rules: Path, oracle: Oracle, user_shards: int
) -> None:
    topics = Topics(kafka)
    topics.produce(RECORDS)
    with (
        serve_users(user_api_of(USERS)) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.dead_letters) as dead_letters,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            rules,
            f"--user_shards={user_shards}",
            f"--user_api_url={api}",
            *PATIENT,
            f"--control_topic={topics.control}",
            "--parallelism=2",
            "--delivery_guarantee=EXACTLY_ONCE",
            "--checkpointing_interval_ms=2000",
        ),
    ):
        check(oracle, topics, actions, dead_letters, inspections)


def test_nothing_is_lost_or_repeated_when_task_managers_are_killed(
    kafka: LocalKafka, rules: Path, oracle: Oracle
) -> None:
    """One of two TaskManagers is killed: the other's worker lives on, its state comes back under a new cache token.

    Both subtasks of a TaskManager share a worker, and shards are compacted all the time.
    """
    topics = Topics(kafka)
    with (
        FlinkCluster(task_managers=2, slots=2) as flink,
        serve_users(user_api_of(USERS)) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.dead_letters) as dead_letters,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            rules,
            f"--user_api_url={api}",
            *PATIENT,
            f"--control_topic={topics.control}",
            "--user_shards=16",
            "--compact_bytes=2000",
            "--parallelism=4",
            "--workers_per_task_manager=1",
            "--worker_keep_ms=60000",
            "--delivery_guarantee=EXACTLY_ONCE",
            "--checkpointing_interval_ms=1000",
        ) as job_id,
    ):
        rest = FlinkRest(flink.rest_url)
        producer = threading.Thread(target=_produce_slowly, args=(topics, 12.0))
        producer.start()
        for _ in range(2):
            done = rest.checkpoints(job_id)["counts"]["completed"]
            wait_for_checkpoint(rest, job_id, done + 2, 60)
            survivor = flink.task_manager_pids[1]
            workers, since = _children(survivor), running_since(rest, job_id)
            flink.kill_task_manager(0)
            flink.start_task_manager()
            wait_for_recovery(rest, job_id, since, 90)
            assert workers & _children(survivor), "no worker lived on: this is to restore under a living one"
        producer.join()
        check(oracle, topics, actions, dead_letters, inspections)


def _produce_slowly(topics: Topics, seconds: float) -> None:
    started = time.monotonic()
    for first in range(0, len(RECORDS), 200):
        topics.produce(RECORDS[first : first + 200])
        pace = started + seconds * first / len(RECORDS) - time.monotonic()
        threading.Event().wait(max(0.0, pace))


def _children(pid: int) -> set[int]:
    """Child processes: of a TaskManager, its Python workers."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(int(entry.name))
    return found
