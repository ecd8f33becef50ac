"""F19 to F23: what waits in Kafka and cannot be read yet holds the time of the stream."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.faults.carts import RULE, Carts
from tests.faults.experiment import RECOVERY_LIMIT_S, Result
from tests.faults.proxy import ProxiedBroker
from tests.faults.stack import Stack
from tests.faults.watched import Run, watched
from tests.flink_cluster import running_since, wait_for_checkpoint, wait_for_recovery
from tests.integration.jobs import PARTITIONS

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(900)]

Keep = Callable[[Result], Result]
CUT_S = 60.0
# Before and after a fault carts are filled for so long: longer than a sequence lasts.
CALM_S = 15.0


@pytest.fixture
def proxied(stack: Stack) -> Iterator[tuple[Stack, ProxiedBroker]]:
    """The stack with a broker of its own, whose consumers a test can cut off."""
    with ProxiedBroker() as broker:
        yield replace(stack, kafka=broker), broker


@contextmanager
def carts(stack: Stack, folder: Path, result: Result, *options: str) -> Iterator[tuple[Run, Carts]]:
    """A job whose rule fires for abandoned carts; the caller submits it and starts the carts, in any order."""
    filled = Carts(random.Random(result.seed))
    with watched(stack, folder, result, [RULE], filled.abandoned, *options) as run:
        try:
            yield run, filled
        finally:
            filled.stop()
        result.verdict.events = len(filled.filled) + len(filled.checked_out)


def client_of(run: Run, partition: int) -> str:
    """A pattern of the client id of the reader that Flink gives a partition to, with as many readers as partitions."""
    topic = 0
    for character in run.topics.events:
        topic = (31 * topic + ord(character)) & 0xFFFFFFFF
    reader = (topic * 31 & 0x7FFFFFFF) % PARTITIONS
    return f"{run.topics.group_id}-(.+-)?{(reader + partition) % PARTITIONS}"


def check_that_it_struck(run: Run, broker: ProxiedBroker, partition: int, result: Result) -> None:
    """Only this partition was cut off: nothing of it was read meanwhile, while all others went on."""
    assert broker.proxy.swallowed > 0, f"nothing was swallowed; fetched: {dict(broker.proxy.fetched)}"
    behind = run.topics.lags()
    assert behind[partition] > CUT_S, behind
    assert all(lag < behind[partition] for other, lag in behind.items() if other != partition), behind
    result.notes["records that waited"] = behind[partition]


def test_f19_a_partition_is_cut_off_at_the_start(
    proxied: tuple[Stack, ProxiedBroker], tmp_path: Path, seed: int, results: Keep
) -> None:
    stack, broker = proxied
    result = results(Result("F19", f"one partition is cut off for {CUT_S:g} s when the job starts", 1, seed))
    partition = random.Random(seed).randrange(PARTITIONS)
    with carts(stack, tmp_path, result, f"--bootstrap_servers={broker.proxy.address}") as (run, filled):
        filled.start(broker.bootstrap_servers, run.topics.events)
        time.sleep(CALM_S)
        broker.proxy.cut(client_of(run, partition))
        run.submit()
        time.sleep(CUT_S)
        check_that_it_struck(run, broker, partition, result)
        broker.proxy.heal()
        time.sleep(CALM_S)


@pytest.mark.parametrize(("fault", "kills"), [("F20", False), ("F21", True)], ids=["f20_in_mid_run", "f21_and_killed"])
def test_a_partition_is_cut_off(
    proxied: tuple[Stack, ProxiedBroker], tmp_path: Path, seed: int, results: Keep, fault: str, kills: bool
) -> None:
    """With F21 a TaskManager is killed meanwhile, so that the job restarts while the partition is cut off."""
    stack, broker = proxied
    what = f"one partition is cut off for {CUT_S:g} s" + (", meanwhile SIGKILL of a TaskManager" if kills else "")
    result = results(Result(fault, what, 1, seed))
    chance = random.Random(seed)
    partition = chance.randrange(PARTITIONS)
    with carts(stack, tmp_path, result, f"--bootstrap_servers={broker.proxy.address}") as (run, filled):
        run.submit()
        filled.start(broker.bootstrap_servers, run.topics.events)
        time.sleep(CALM_S)
        wait_for_checkpoint(run.rest, run.job_id, run.completed() + 1, 180)
        broker.proxy.cut(client_of(run, partition))
        ends_s = time.monotonic() + CUT_S
        if kills:
            time.sleep(chance.uniform(2, 6))
            since, struck_s = running_since(run.rest, run.job_id), time.monotonic()
            stack.flink.kill_task_manager(chance.randrange(2))
            stack.flink.start_task_manager()
            wait_for_recovery(run.rest, run.job_id, since, RECOVERY_LIMIT_S)
            result.recovery_s.append(time.monotonic() - struck_s)
        # After a restart for long enough that the other partitions run ahead.
        time.sleep(max(CUT_S / 2, ends_s - time.monotonic()))
        check_that_it_struck(run, broker, partition, result)
        broker.proxy.heal()
        time.sleep(CALM_S)


@pytest.mark.parametrize(("fault", "commits"), [("F22", True), ("F23", False)], ids=["f22_committed", "f23_aborted"])
def test_a_transaction_is_open(
    stack: Stack, tmp_path: Path, seed: int, results: Keep, fault: str, commits: bool
) -> None:
    """All checkouts of a partition are written in a transaction. What is aborted has never been."""
    how = "then committed" if commits else "then aborted"
    result = results(Result(fault, f"a transaction is open for {CUT_S:g} s in one partition, {how}", 1, seed))
    partition = random.Random(seed).randrange(PARTITIONS)
    with carts(stack, tmp_path, result) as (run, filled):
        transaction = Producer(
            {"bootstrap.servers": stack.kafka.bootstrap_servers, "transactional.id": f"open-{run.topics.tag}"}
        )
        transaction.init_transactions(60)
        run.submit()
        filled.start(stack.kafka.bootstrap_servers, run.topics.events)
        time.sleep(CALM_S)
        transaction.begin_transaction()
        filled.transactions[partition] = transaction
        time.sleep(CUT_S)
        del filled.transactions[partition]
        time.sleep(1)  # a checkout may be on its way into the transaction
        users = filled.in_transaction[partition]
        if commits:
            transaction.commit_transaction(60)
        else:
            transaction.abort_transaction(60)
            filled.checked_out -= users
        result.notes["checkouts in the transaction"] = len(users)
        assert len(users) > CUT_S
        time.sleep(CALM_S)
