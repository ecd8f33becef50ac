"""Reading and writing topics, on a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from pipeline.kafka.topics import TopicWriter, open_reader
from runners.flink.local.broker import LocalKafka
from tests.waiting import eventually

pytestmark = pytest.mark.stack


@pytest.fixture
def topic(kafka: LocalKafka) -> str:
    kafka.create_topic(name := f"topic-{uuid.uuid4().hex[:8]}", 2)
    return name


@pytest.fixture
def config(kafka: LocalKafka) -> dict[str, str]:
    return {"bootstrap.servers": kafka.bootstrap_servers}


@pytest.fixture
def write(config: dict[str, str], topic: str) -> Callable[..., None]:
    """Writes values to a partition."""
    producer = Producer(config)

    def write(partition: int, *values: bytes) -> None:
        for value in values:
            producer.produce(topic, value, partition=partition)
        assert producer.flush(30) == 0

    return write


def test_what_is_written_while_records_are_taken_is_left_out(
    topic: str, config: dict[str, str], write: Callable[..., None]
) -> None:
    values = [b"%d" % number for number in range(1500)]  # more than one poll takes
    write(0, *values)
    write(1, b"other")
    taken, shares = [], []
    with open_reader(config, topic) as reader:
        for message in reader.records():
            if not taken:
                write(0, b"later")  # as a redriven letter that fails again
            taken.append(message.value())
            shares.append(reader.share_read)
    assert sorted(taken) == sorted([*values, b"other"])
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (pytest.approx(1 / 1501), 1.0)


def test_records_of_no_partition_that_has_any_are_none(topic: str, config: dict[str, str]) -> None:
    with open_reader(config, topic) as reader:
        assert list(reader.records()) == []
    with open_reader(config, "nowhere") as reader:
        assert reader.partitions == []
        assert list(reader.records()) == []


def test_an_offset_without_a_record_has_none(topic: str, config: dict[str, str]) -> None:
    producer = Producer(config | {"transactional.id": topic})
    producer.init_transactions(30)
    for value in (b"a", b"b"):
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.commit_transaction(30)  # which takes an offset of its own
    found = []
    for partition, offset in ((0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0)):
        with open_reader(config, topic) as reader:
            message = reader.record(partition, offset)
            found.append(None if message is None else message.value())
    assert found == [b"a", None, b"b", None, None, None, None]


def test_each_record_has_its_own_result(topic: str, config: dict[str, str]) -> None:
    writer = TopicWriter(config)
    errors: list[str | None] = []
    for value, partition in ((b"a", 0), (b"x" * 2_000_000, 0), (b"b", 7), (b"c", None)):
        writer.write(topic, b"k", value, partition, errors.append)
    assert writer.flush() == 0
    assert len(errors) == 4
    assert sum(error is None for error in errors) == 2
    assert writer.topics()[topic] == 2


def test_the_last_records_of_each_partition_are_read(
    topic: str, config: dict[str, str], write: Callable[..., None]
) -> None:
    write(0, *(b"0-%d" % number for number in range(5)))
    write(1, b"1-0")
    with open_reader(config, topic, last=2) as reader:
        assert sorted(message.value() for message in reader.records()) == [b"0-3", b"0-4", b"1-0"]


def test_from_the_end_on_nothing_is_missed_that_comes_before_the_first_poll(
    topic: str, config: dict[str, str], write: Callable[..., None]
) -> None:
    write(0, b"before")
    with open_reader(config, topic, last=0) as reader:
        write(0, b"after")
        found: list[bytes | None] = []
        eventually(lambda: found.extend(message.value() for message in reader.poll(0.1)) or found, "a record", 10)
    assert found == [b"after"]
