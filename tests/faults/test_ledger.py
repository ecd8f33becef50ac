"""F26 to F30: faults with a ledger of deliveries: only what was in flight is repeated (docs/delivery.md)."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.builders import random_stream
from tests.faults.experiment import USERS, Experiment, Result, earlier_pieces, experiment
from tests.faults.load import Record
from tests.faults.repeats import APPENDED_S, CAUSES, causes_of_repeats
from tests.faults.stack import Stack, parent_of, within
from tests.faults.test_kills import kill_harness, kill_task_manager, wait_for_a_phase
from tests.faults.test_upgrades import nothing_changes

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(1800)]

Keep = Callable[[Result], Result]

SHARDS = 32
WORKERS = 4
MAX_IN_FLIGHT = 8
RECEIVER_S = 0.02
EVENTS_A_SECOND = 260.0  # of which 200 are clicks, and have a webhook
# At 200 webhooks a second: what is answered within a batch of 5 ms, a write to Kafka and a step of a busy machine.
UNACKNOWLEDGED = 20

Pieces = Callable[[str, str, int], AbstractContextManager[Result]]


@pytest.fixture
def pieces(request: pytest.FixtureRequest, seed: int, results: Keep) -> Pieces:
    """Of so many kills a run makes ``--kills``; the next run goes on where the last one stopped."""

    @contextmanager
    def piece(fault: str, what: str, times: int) -> Iterator[Result]:
        earlier = earlier_pieces(request.config.option.faults_results, fault, times)
        left = times - (earlier["times"] if earlier else 0)
        result = results(Result(fault, what, min(request.config.option.kills, left), seed))
        yield result
        if earlier:
            result.add_to(earlier)
            result.notes["repeats in 1000 webhooks"] = in_1000(result)

    return piece


def in_1000(result: Result) -> float:
    return round(1000 * result.verdict.webhook_repeats / result.verdict.webhooks, 1)


@contextmanager
def with_ledger(stack: Stack, folder: Path, result: Result, *options: str) -> Iterator[Experiment]:
    """An experiment whose job keeps a ledger; at the end every repeat is explained by it."""
    topic = f"deliveries-{uuid.uuid4().hex[:8]}"
    stack.kafka.create_topic(topic, SHARDS)
    with experiment(
        stack,
        folder,
        result,
        f"--deliveries_topic={topic}",
        *options,
        rate=EVENTS_A_SECOND,
        stream=mostly_clicks(result.seed),
        max_in_flight=MAX_IN_FLIGHT,
    ) as run:
        run.receiver.answers["/crm"] = lambda: (time.sleep(RECEIVER_S), 200)[1]
        yield run
    repeats = result.verdict.webhook_repeats
    allowed = (WORKERS * MAX_IN_FLIGHT + UNACKNOWLEDGED) * result.times
    ledger = records(stack.kafka.bootstrap_servers, topic)
    arrivals = zip(run.receiver.times, (webhook_id for webhook_id, _, _ in run.receiver.seen), strict=True)
    causes, problems = causes_of_repeats(ledger, arrivals, [fault.struck_s for fault in run.faults], RECEIVER_S)
    result.notes |= {"repeats in 1000 webhooks": in_1000(result), **{f"{why}, at most": causes[why] for why in CAUSES}}
    assert problems == []
    assert repeats <= allowed
    assert repeats <= 0.005 * result.verdict.webhooks


def mostly_clicks(seed: int) -> Iterator[Record]:
    """All clicks of a random stream, and a few of the other events."""
    chance = random.Random(seed)
    records = random_stream(seed, len(USERS), 10**9)
    return (record for record in records if b'"event_name":"click"' in record[1] or chance.random() < 0.1)


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


def test_f26_task_managers_are_killed(stack: Stack, tmp_path: Path, pieces: Pieces) -> None:
    with pieces("F26", "F1 with a ledger of deliveries", 10) as result, with_ledger(stack, tmp_path, result) as run:
        for _ in range(result.times):
            wait_for_a_phase(run)
            kill_task_manager(run)


def test_f27_harnesses_are_killed(stack: Stack, tmp_path: Path, pieces: Pieces) -> None:
    with pieces("F27", "F3 with a ledger of deliveries", 10) as result, with_ledger(stack, tmp_path, result) as run:
        for _ in range(result.times):
            wait_for_a_phase(run)
            kill_harness(run)


def test_f28_kills_between_send_and_checkpoint(stack: Stack, tmp_path: Path, pieces: Pieces) -> None:
    with pieces("F28", "F6 with a ledger of deliveries", 10) as result, with_ledger(stack, tmp_path, result) as run:
        for _ in range(result.times):
            run.wait_for_checkpoints(1)
            target = len(run.receiver.seen) + run.chance.randint(50, 300)
            run.receiver.until(lambda target=target: len(run.receiver.seen) >= target, 60)  # type: ignore[misc]
            kill_task_manager(run)


def test_f29_savepoint_and_rescale(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F29", "F12 with a ledger of deliveries, parallelism 2, 4, 2", 2, seed))
    with with_ledger(stack, tmp_path, result, "--parallelism=2") as run:
        for parallelism in (4, 2):
            run.pause(5, 10)
            run.move(f"--parallelism={parallelism}", meanwhile=nothing_changes)
            run.wait_for_checkpoints(1)


def test_f30_a_worker_is_stopped_for_90_s(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    """A TaskManager and its workers are frozen; when they go on, their shards have another worker."""
    result = results(Result("F30", "SIGSTOP of a TaskManager and its workers for 90 s, with a ledger", 1, seed))
    with with_ledger(stack, tmp_path, result) as run:
        wait_for_a_phase(run)
        flink = run.stack.flink
        pid = flink.task_manager_pids[0]
        frozen = [pid, *(worker for worker in run.stack.workers() if parent_of(worker) == pid)]
        since, struck_s = run.running_since(), run.strike()
        for process in frozen:
            os.kill(process, signal.SIGSTOP)
        flink.add_task_manager()
        try:
            run.recover(struck_s, lambda: run.runs_again(since))
            done = run.completed()
            within(lambda: run.completed() > done, lambda: "no checkpoint", 60)
            time.sleep(max(0.0, struck_s + 90 - time.monotonic()))
        finally:
            for process in frozen:
                os.kill(process, signal.SIGCONT)
        run.faults[-1].over_s = time.time() + APPENDED_S
        within(lambda: not set(frozen[1:]) & set(run.stack.workers()), lambda: "the former workers go on", 120)
        flink.remove_task_manager(pid)
