"""``rules backtest`` on a real topic."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from pipeline.cli.main import main
from pipeline.kafka.recorded_topic import records_between
from runners.flink.local.broker import LocalKafka
from tests.builders import NOW_MS

pytestmark = pytest.mark.stack

PARTITIONS = 3
EVENTS = 3000


@pytest.fixture(scope="module")
def topic(kafka: LocalKafka) -> str:
    """Records a second apart, spread over the partitions; the broker keeps their times."""
    name = f"recorded-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(name, PARTITIONS)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 20})
    for number in range(EVENTS):
        at_ms = NOW_MS + number * 1000
        user_id = f"u{number % 7}"
        value = {"event_id": f"e{number}", "user_id": user_id, "event_name": "go", "timestamp": at_ms}
        producer.produce(name, orjson.dumps(value), user_id, partition=number % 7 % PARTITIONS, timestamp=at_ms)
    producer.produce(name, None, b"u0", partition=0, timestamp=NOW_MS + 5)  # a tombstone
    # A transaction that was given up: it is not to be read, and its marker is the end of a partition.
    giver_up = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": name})
    giver_up.init_transactions()
    giver_up.begin_transaction()
    giver_up.produce(name, b"{}", b"u1", partition=1, timestamp=NOW_MS + 7)
    giver_up.flush(30)
    giver_up.abort_transaction(30)
    assert producer.flush(60) == 0
    return name


def read(kafka: LocalKafka, topic: str, **times: Any) -> list[int]:
    """Seconds since the first record."""
    config = {"bootstrap.servers": kafka.bootstrap_servers, "isolation.level": "read_committed"}
    found = records_between(config, topic, times.get("from_ms"), times.get("until_ms"))
    return [(record.timestamp_ms - NOW_MS) // 1000 for record in found]


def test_partitions_are_merged_by_record_time(kafka: LocalKafka, topic: str) -> None:
    assert read(kafka, topic) == list(range(EVENTS))


def test_times_bound_what_is_read(kafka: LocalKafka, topic: str) -> None:
    first_ms, end_ms = NOW_MS + 1_000_000, NOW_MS + 2_000_000
    assert read(kafka, topic, from_ms=first_ms, until_ms=end_ms) == list(range(1000, 2000))
    assert read(kafka, topic, until_ms=first_ms) == list(range(1000))
    assert read(kafka, topic, from_ms=end_ms) == list(range(2000, EVENTS))
    assert read(kafka, topic, from_ms=NOW_MS + 10**10) == []
    assert read(kafka, topic, until_ms=NOW_MS - 10**10) == []


def test_a_part_of_a_topic_is_replayed(
    kafka: LocalKafka, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text("{name: r, version: 1, filter: 'true', actions: [{type: debug}], cooldown: 5m}")
    options = [f"--bootstrap_servers={kafka.bootstrap_servers}", f"--events_topic={topic}"]
    bounds = ["--from=2024-01-01T00:10:00Z", "--until=2024-01-01T00:20:00Z"]
    assert main(["rules", "backtest", str(tmp_path), *options, *bounds, f"--json={tmp_path / 'json'}"]) == 0
    assert capsys.readouterr().out.startswith("600 events of 7 users, 2024-01-01T00:10:00Z to 2024-01-01T00:19:59Z")
    (rule,) = orjson.loads((tmp_path / "json").read_bytes())["rules"]
    # Each of seven users fires at once, and 301 s later (43 events of 7 s) again.
    assert (rule["counts"]["fired"], rule["users"]) == (14, 7)


def test_a_topic_that_is_not_there_is_refused(
    kafka: LocalKafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text("{name: r, version: 1, filter: 'true', actions: [{type: debug}]}")
    options = [f"--bootstrap_servers={kafka.bootstrap_servers}", "--events_topic=nothing"]
    assert main(["rules", "backtest", str(tmp_path), *options]) == 2
    assert "error: --events_topic: topic 'nothing': Broker: Unknown topic or partition" in capsys.readouterr().err
