"""Reading a topic up to its present ends, on a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from runners.flink.local.broker import LocalKafka
from transforms.adapters.kafka.bounded_reader import BoundedReader, TopicReadError, open_bounded_reader

pytestmark = pytest.mark.stack

OutOfRange = list[tuple[int, int, int]]


class Topic:
    """A topic of two partitions and what tests do to it."""

    def __init__(self, kafka: LocalKafka) -> None:
        self.name = f"bounded-{uuid.uuid4().hex[:8]}"
        self.config = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": self.name, "log_level": "0"}
        kafka.create_topic(self.name, 2)
        self._plain = Producer(self.config)
        self.out_of_range: OutOfRange = []

    def write(self, count: int, partition: int = 0, size: int = 1, producer: Producer | None = None) -> None:
        producer = producer or self._plain
        for _ in range(count):
            producer.produce(self.name, b"x" * size, partition=partition)
        assert producer.flush(30) == 0

    def transaction(self, count: int) -> Producer:
        producer = Producer({**self.config, "transactional.id": uuid.uuid4().hex})
        producer.init_transactions(30)
        producer.begin_transaction()
        self.write(count, producer=producer)
        return producer

    def trim(self, partition: int, offset: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.config["bootstrap.servers"]})
        for future in admin.delete_records([TopicPartition(self.name, partition, offset)]).values():
            future.result(30)

    def commit(self, offsets: Mapping[int, int]) -> None:
        consumer = Consumer(self.config)
        places = [TopicPartition(self.name, partition, offset) for partition, offset in offsets.items()]
        consumer.commit(offsets=places, asynchronous=False)
        consumer.close()

    def reader(self, **config: str):  # type: ignore[no-untyped-def]
        names = {name.replace("_", "."): value for name, value in config.items()}
        return open_bounded_reader({**self.config, **names}, self.name, lambda *place: self.out_of_range.append(place))

    def read(self, start: str = "committed", time_ms: int = 0) -> list[tuple[int, int]]:
        """Partition and offset of what is read."""
        with self.reader() as reader:
            starts = {"committed": reader.committed, "at": lambda: reader.at(time_ms)}[start]()
            return places(reader, starts)


def places(reader: BoundedReader, starts: Mapping[int, int]) -> list[tuple[int, int]]:
    read = [(message.partition(), message.offset()) for messages in reader.polls(starts, 100) for message in messages]
    return sorted(read)  # type: ignore[arg-type]


@pytest.fixture
def topic(kafka: LocalKafka) -> Topic:
    return Topic(kafka)


def test_a_group_goes_on_at_its_offset_and_at_the_beginning_where_it_has_none(topic: Topic) -> None:
    topic.write(5)
    topic.write(2, partition=1)
    topic.commit({0: 3})
    assert topic.read() == [(0, 3), (0, 4), (1, 0), (1, 1)]
    assert topic.out_of_range == []


def test_a_group_whose_offset_was_trimmed_goes_on_at_the_earliest_record(topic: Topic) -> None:
    topic.write(9)
    topic.commit({0: 2})
    topic.trim(0, 6)
    assert topic.read() == [(0, 6), (0, 7), (0, 8)]
    assert topic.out_of_range == [(0, 2, 6)]


def test_a_group_whose_offset_lies_beyond_the_end_reads_all(topic: Topic) -> None:
    topic.write(3)
    topic.commit({0: 1000})
    assert topic.read() == [(0, 0), (0, 1), (0, 2)]
    assert topic.out_of_range == [(0, 1000, 0)]


def test_a_group_whose_records_are_all_gone_reads_nothing_and_says_so(topic: Topic) -> None:
    topic.write(4)
    topic.commit({0: 1})
    topic.trim(0, 4)
    assert topic.read() == []
    assert topic.out_of_range == [(0, 1, 4)]


def test_a_group_at_the_end_reads_nothing(topic: Topic) -> None:
    topic.write(4)
    topic.commit({0: 4})
    assert topic.read() == []
    assert topic.out_of_range == []


def test_aborted_records_and_markers_at_the_end_are_passed(topic: Topic) -> None:
    topic.write(2)
    topic.transaction(3).commit_transaction(30)
    topic.transaction(3).abort_transaction(30)
    topic.transaction(0).commit_transaction(30)
    assert topic.read() == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]


def test_only_aborted_records_end_by_themselves(topic: Topic) -> None:
    topic.transaction(3).abort_transaction(30)
    assert topic.read() == []


def test_an_open_transaction_ends_the_reading_before_it(topic: Topic) -> None:
    topic.write(2)
    open_transaction = topic.transaction(3)
    topic.write(1)
    assert topic.read() == [(0, 0), (0, 1)]
    # As a group that read uncommitted records before: its offset is in range, and nothing is read twice.
    topic.commit({0: 4})
    assert topic.read() == []
    assert topic.out_of_range == []
    open_transaction.abort_transaction(30)
    assert topic.read() == [(0, 5)]


def test_a_time_after_the_last_record_reads_nothing(topic: Topic) -> None:
    topic.write(3)
    assert topic.read("at", 4_000_000_000_000) == []
    assert topic.read("at", 1) == [(0, 0), (0, 1), (0, 2)]


def test_a_partition_that_is_trimmed_meanwhile_goes_on_at_its_earliest_record(topic: Topic) -> None:
    for _ in range(50):
        topic.write(1, size=20_000)  # a batch each, so that they are not all fetched at once
    slow = {"queued_min_messages": "1", "queued_max_messages_kbytes": "1", "fetch_message_max_bytes": "20100"}
    with topic.reader(**slow) as reader:
        polls = reader.polls(reader.lows, 1)
        offsets = [next(filter(None, polls))[0].offset()]
        topic.trim(0, 40)
        offsets += [message.offset() for messages in polls for message in messages]
    assert offsets == [*range(topic.out_of_range[0][1]), *range(40, 50)]
    assert [(place[0], place[2]) for place in topic.out_of_range] == [(0, 40)]


def test_what_is_written_meanwhile_is_left_to_the_next_run(topic: Topic) -> None:
    topic.write(2)
    with topic.reader() as reader:
        topic.write(5)
        assert places(reader, reader.lows) == [(0, 0), (0, 1)]


def test_a_missing_topic_is_named(topic: Topic) -> None:
    topic.name = "missing"
    with pytest.raises(TopicReadError, match=r"^topic 'missing': Broker: Unknown topic or partition$"):
        topic.read()
