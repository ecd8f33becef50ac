"""F26 to F30: faults with a ledger of deliveries: only what was in flight is repeated (docs/delivery.md)."""

from __future__ import annotations

import hashlib
import os
import signal
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.faults.experiment import Experiment, Result, experiment
from tests.faults.stack import Stack, parent_of, within
from tests.faults.test_kills import kill_harness, kill_task_manager, wait_for_a_phase
from tests.faults.test_upgrades import nothing_changes

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(1800)]

Keep = Callable[[Result], Result]

SHARDS = 32
WORKERS = 4
MAX_IN_FLIGHT = 8
RECEIVER_S = 0.02
EVENTS_A_SECOND = 800.0  # one in four is a click, and has a webhook
# At 200 webhooks a second: what is answered within a batch of 5 ms, a write to Kafka and a step of a busy machine.
UNACKNOWLEDGED = 20
CLAIM, SETTLED = 1, 2


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.option.kills)


@contextmanager
def with_ledger(stack: Stack, folder: Path, result: Result, rate: float = EVENTS_A_SECOND) -> Iterator[Experiment]:
    """An experiment whose job keeps a ledger; at the end every repeat is explained by it."""
    topic = f"deliveries-{uuid.uuid4().hex[:8]}"
    stack.kafka.create_topic(topic, SHARDS)
    with experiment(
        stack, folder, result, f"--deliveries_topic={topic}", rate=rate, max_in_flight=MAX_IN_FLIGHT
    ) as run:
        run.receiver.answers["/crm"] = lambda: (time.sleep(RECEIVER_S), 200)[1]
        yield run
    repeats = result.verdict.webhook_repeats
    webhooks = result.verdict.webhooks
    allowed = (WORKERS * MAX_IN_FLIGHT + UNACKNOWLEDGED) * result.times
    result.notes |= {"repeats allowed": allowed, "repeats in 1000 webhooks": round(1000 * repeats / webhooks, 1)}
    assert unexplained(stack.kafka.bootstrap_servers, topic, run) == []
    assert repeats <= allowed
    assert repeats <= 0.005 * webhooks


def unexplained(brokers: str, topic: str, run: Experiment) -> list[str]:
    """The webhooks that came again although the ledger had their end before the newest claim of their shard."""
    claims: dict[int, list[tuple[float, int]]] = defaultdict(list)  # by partition: time and offset
    ends: dict[bytes, tuple[int, int]] = {}  # by id: partition, and offset of the first record
    for partition, offset, time_s, (kind, _, key, *_rest) in records(brokers, topic):
        if kind == CLAIM:
            claims[partition].append((time_s, offset))
        elif kind == SETTLED:
            ends.setdefault(key, (partition, offset))
    seen: set[str] = set()
    found = []
    for at_s, (webhook_id, _, _) in zip(run.receiver.times, run.receiver.seen, strict=True):
        key = hashlib.blake2b(msgspec.msgpack.encode([webhook_id, ""]), digest_size=16).digest()
        if webhook_id in seen and key in ends:
            partition, end = ends[key]
            newest = max((offset for time_s, offset in claims[partition] if time_s <= at_s), default=-1)
            if end < newest:
                found.append(f"{webhook_id} at {at_s}: ended at {partition}/{end}, claimed at {newest}")
        seen.add(webhook_id)
    return found


def records(brokers: str, topic: str) -> Iterator[tuple[int, int, float, list[object]]]:
    """Partition, offset, time and contents of every record of a topic."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "test-ledger", "auto.offset.reset": "earliest"})
    ends = {n: consumer.get_watermark_offsets(TopicPartition(topic, n))[1] for n in range(SHARDS)}
    consumer.assign([TopicPartition(topic, n, 0) for n in ends])
    left = sum(ends.values())
    while left:
        for message in consumer.consume(1000, 1.0):
            assert message.error() is None, message.error()
            if message.offset() < ends[message.partition()]:
                left -= 1
                value = msgspec.msgpack.decode(message.value())
                yield message.partition(), message.offset(), message.timestamp()[1] / 1000, value
    consumer.close()


def test_f26_task_managers_are_killed(stack: Stack, tmp_path: Path, seed: int, results: Keep, kills: int) -> None:
    result = results(Result("F26", "F1 with a ledger of deliveries", kills, seed))
    with with_ledger(stack, tmp_path, result) as run:
        for _ in range(result.times):
            wait_for_a_phase(run)
            kill_task_manager(run)


def test_f27_harnesses_are_killed(stack: Stack, tmp_path: Path, seed: int, results: Keep, kills: int) -> None:
    result = results(Result("F27", "F3 with a ledger of deliveries", kills, seed))
    with with_ledger(stack, tmp_path, result) as run:
        for _ in range(result.times):
            wait_for_a_phase(run)
            kill_harness(run)


def test_f28_kills_between_send_and_checkpoint(
    stack: Stack, tmp_path: Path, seed: int, results: Keep, kills: int
) -> None:
    result = results(Result("F28", "F6 with a ledger of deliveries", kills, seed))
    with with_ledger(stack, tmp_path, result) as run:
        for _ in range(result.times):
            run.wait_for_checkpoints(1)
            target = len(run.receiver.seen) + run.chance.randint(50, 300)
            run.receiver.until(lambda target=target: len(run.receiver.seen) >= target, 60)  # type: ignore[misc]
            kill_task_manager(run)


def test_f29_savepoint_and_rescale(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F29", "F12 with a ledger of deliveries, parallelism 4, 2, 4", 2, seed))
    with with_ledger(stack, tmp_path, result) as run:
        for parallelism in (2, 4):
            run.pause(5, 10)
            run.move(f"--parallelism={parallelism}", meanwhile=nothing_changes)
            run.wait_for_checkpoints(1)


def test_f30_a_worker_is_stopped_for_90_s(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    """A TaskManager and its workers are frozen; when they go on, their shards have another worker."""
    result = results(Result("F30", "SIGSTOP of a TaskManager and its workers for 90 s, with a ledger", 1, seed))
    with with_ledger(stack, tmp_path, result) as run:
        wait_for_a_phase(run)
        pid = run.stack.flink.task_manager_pids[0]
        frozen = [pid, *(worker for worker in run.stack.workers() if parent_of(worker) == pid)]
        since, struck_s = run.running_since(), run.strike()
        for process in frozen:
            os.kill(process, signal.SIGSTOP)
        try:
            time.sleep(90)
        finally:
            for process in frozen:
                os.kill(process, signal.SIGCONT)

        def recovered() -> bool:
            run.stack.flink.replace_dead_task_managers()
            return run.runs_again(since)

        run.recover(struck_s, recovered)
        within(lambda: run.completed() > 0, lambda: "no checkpoint", 60)
