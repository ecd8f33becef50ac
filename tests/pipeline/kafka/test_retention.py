"""Whether Kafka still has what was written since a time."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.kafka.retention import kept_since, lacking
from runners.flink.local.broker import LocalKafka


@pytest.mark.parametrize(
    ("bounds", "first", "lost"),
    [
        ((0, 0), None, False),  # nothing was ever written
        ((0, 9), 0, False),  # nothing was deleted
        ((5, 9), 6, False),  # a record of before is left
        ((5, 9), None, False),  # all that is left is of before
        ((5, 9), 5, True),  # the last deleted record may be of after
        ((9, 9), None, True),  # all was deleted
    ],
)
def test_a_partition_lacks_records_unless_one_of_before_is_left(
    bounds: tuple[int, int], first: int | None, lost: bool
) -> None:
    assert lacking({3: bounds}, {3: first}) == ((3,) if lost else ())


@pytest.mark.stack
def test_partitions_that_were_trimmed_are_named(kafka: LocalKafka) -> None:
    kafka.create_topic(name := f"topic-{uuid.uuid4().hex[:8]}", 3)
    config = {"bootstrap.servers": kafka.bootstrap_servers}
    producer = Producer(config)
    for partition in (0, 1):
        for second in range(1, 7):
            producer.produce(name, b"x", partition=partition, timestamp=second * 1000)
    assert producer.flush(30) == 0
    admin = AdminClient(config)
    for future in admin.delete_records([TopicPartition(name, 1, 4)]).values():  # seconds 5 and 6 are left
        future.result()
    kept = kept_since(config, name, [2500, 4500, 5500, 9000])
    assert [each.partitions for each in kept] == [(1,), (1,), (), ()]
    assert str(kept[0]) == "no, Kafka deleted later events of partition 1"
    assert str(kept[2]) == "yes"
