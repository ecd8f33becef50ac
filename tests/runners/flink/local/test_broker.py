from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from runners.flink.errors import LocalStackError
from tests.kafka_broker import KafkaBroker

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[KafkaBroker]:
    """A broker that tests may kill."""
    often = {"log.retention.check.interval.ms": "200", "log.initial.task.delay.ms": "200"}
    with KafkaBroker(config={"message.max.bytes": "123456", **often}) as broker:
        yield broker


def produce(kafka: KafkaBroker, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def consume(kafka: KafkaBroker, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        consumer.subscribe([topic])
        values: list[bytes] = []
        for _ in range(300):
            values += [message.value() for message in consumer.consume(10, 0.1) if message.error() is None]
            if len(values) >= count:
                break
        return values
    finally:
        consumer.close()


def test_a_topic_has_its_partitions_and_configuration(own_kafka: KafkaBroker) -> None:
    from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

    own_kafka.create_topic("configured", 4, {"retention.ms": "60000"})
    admin = AdminClient({"bootstrap.servers": own_kafka.bootstrap_servers})
    assert len(admin.list_topics("configured", timeout=5).topics["configured"].partitions) == 4
    resource = ConfigResource(ResourceType.TOPIC, "configured")
    settings = admin.describe_configs([resource])[resource].result(10)
    assert settings["retention.ms"].value == "60000"
    assert settings["max.message.bytes"].value == "123456"


def test_a_topic_that_exists_is_an_error(own_kafka: KafkaBroker) -> None:
    own_kafka.create_topic("twice")
    with pytest.raises(LocalStackError, match=r"topic 'twice' with 1 partitions.*already exists"):
        own_kafka.create_topic("twice")


def test_records_with_timestamps_of_years_ago_stay_unless_a_topic_says_otherwise(own_kafka: KafkaBroker) -> None:
    own_kafka.create_topic("kept-for-ever")
    own_kafka.create_topic("kept-a-week", config={"retention.ms": str(7 * 86_400_000)})
    producer = Producer({"bootstrap.servers": own_kafka.bootstrap_servers, "log_level": 0})
    for topic in ("kept-for-ever", "kept-a-week"):
        producer.produce(topic, b"old", timestamp=1_704_103_200_000)
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": own_kafka.bootstrap_servers, "group.id": "reader", "log_level": 0})

    def first_offset(topic: str) -> int:
        low, _ = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
        return int(low)

    try:
        give_up = time.monotonic() + 60
        while first_offset("kept-a-week") == 0:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        assert first_offset("kept-for-ever") == 0
    finally:
        consumer.close()


def test_a_killed_broker_restarts_with_its_data_on_the_same_port(own_kafka: KafkaBroker) -> None:
    own_kafka.create_topic("kept", 2)
    produce(own_kafka, "kept", b"before")
    servers, pid = own_kafka.bootstrap_servers, own_kafka.pid
    own_kafka.kill()
    with pytest.raises(LocalStackError, match="is not running"):
        own_kafka.kill()
    own_kafka.restart()
    assert own_kafka.bootstrap_servers == servers
    assert own_kafka.pid != pid
    produce(own_kafka, "kept", b"after")
    assert sorted(consume(own_kafka, "kept", 2)) == [b"after", b"before"]


def test_only_a_killed_broker_has_a_short_session() -> None:
    """Its restart waits for the end of its session. A pause of the machine would end the short session of another."""

    def session_ms(broker: KafkaBroker) -> int:
        properties = (broker.work_dir / "server.properties").read_text()
        (setting,) = re.findall(r"broker\.session\.timeout\.ms=(\d+)", properties)
        return int(setting)

    with KafkaBroker() as broker:
        assert session_ms(broker) == 60_000
        broker.kill()
        broker.restart()
        assert session_ms(broker) == 3000
        broker.restart()
        assert session_ms(broker) == 60_000


def test_nothing_is_left_after_stop(left_over: Callable[[], list[str]]) -> None:
    with KafkaBroker() as broker:
        work_dir = broker.work_dir
        assert "Kafka Server started" in (work_dir / "broker.log").read_text()
    assert left_over() == []
    assert not work_dir.exists()
    with pytest.raises(LocalStackError, match="not started"):
        _ = broker.work_dir


def test_a_broker_that_cannot_start_says_why(left_over: Callable[[], list[str]]) -> None:
    with pytest.raises(LocalStackError, match=r"num\.partitions"), KafkaBroker(config={"num.partitions": "none"}):
        pass
    assert left_over() == []
