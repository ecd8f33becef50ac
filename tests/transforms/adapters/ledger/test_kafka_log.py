"""The ledger on a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.kafka_broker import KafkaBroker
from tests.transforms.adapters.ledger.test_delivery_ledger import JOB, at_once, begin, delivery, send
from tests.waiting import eventually
from transforms.adapters.ledger.delivery_ledger import DeliveryLedger, ShardLedger
from transforms.adapters.ledger.kafka_log import KafkaLog
from transforms.adapters.telemetry.metrics import WorkerMetrics
from transforms.domain.webhooks.ledger import LedgerPosition

pytestmark = pytest.mark.stack

SHARD = 3


@pytest.fixture
def topic(kafka: KafkaBroker) -> str:
    name = f"deliveries-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(name, 4)
    return name


class Workers:
    def __init__(self, brokers: str, topic: str) -> None:
        self._config = {"bootstrap.servers": brokers}
        self._topic = topic
        self.started: list[DeliveryLedger] = []

    def start(self) -> DeliveryLedger:
        metrics = WorkerMetrics()
        self.started.append(DeliveryLedger(KafkaLog(self._config, self._topic), self._topic, JOB, metrics, at_once))
        return self.started[-1]


@pytest.fixture
def workers(kafka: KafkaBroker, topic: str) -> Iterator[Workers]:
    workers = Workers(kafka.bootstrap_servers, topic)
    yield workers
    for ledger in workers.started:
        ledger._core.stopped.set()


def opened(ledger: DeliveryLedger, position: LedgerPosition | None = None) -> ShardLedger:
    shard = ledger.open(SHARD, position)
    eventually(shard.is_ready, "a lease")
    return shard


def test_the_next_worker_finds_what_ended_and_the_former_stops(workers: Workers) -> None:
    first = opened(workers.start())
    waits = begin(first, "waits")
    names = [f"webhook {number}" for number in range(300)]
    for name in names:
        send(first, name)
    eventually(lambda: first._session.read_to == 301, "300 ends and a claim were read")
    position = first.fold(names[:100], 10_000)
    assert position is not None
    assert position.offset == 101
    second = opened(workers.start(), position)
    assert not waits.may_send()
    assert [second.find(delivery(name)) is not None for name in names] == [False] * 100 + [True] * 200
    send(second, "new")
    eventually(lambda: second.find(delivery("new")) is not None, "its own end")


def test_a_position_that_retention_or_a_new_topic_left_behind_is_read_from_the_earliest(
    workers: Workers, topic: str
) -> None:
    send(opened(workers.start()), "a")
    second = opened(workers.start(), LedgerPosition(topic, 1_000_000))
    eventually(lambda: second.find(delivery("a")) is not None, "what there is")


def test_other_shards_of_a_worker_are_read_while_one_begins(workers: Workers) -> None:
    worker = workers.start()
    shards = [worker.open(shard, None) for shard in range(4)]
    for number, shard in enumerate(shards):
        eventually(shard.is_ready, "a lease")
        send(shard, f"{number}")
    for number, shard in enumerate(shards):
        assert shard.find(delivery(f"{number}")) is not None
        assert shard.find(delivery(f"{number + 1}")) is None
