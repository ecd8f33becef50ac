"""The stream's time and the moving parts of Kafka: open transactions, new partitions, deleted records, a topic anew."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from pipeline.cli.main import main
from pipeline.job.snapshot import take_snapshot
from runners.flink.errors import LocalStackError
from runners.flink.local.broker import LocalKafka
from tests.builders import event
from tests.flink_cluster import FlinkCluster
from tests.integration.jobs import PARTITIONS, Reader, Topics, reading, running
from tests.waiting import again_and_again, eventually

pytestmark = pytest.mark.stack

FLOWING = 1
QUICK = ("--watermark_idleness_ms=500", "--watermark_out_of_orderness_ms=0", "--allowed_lateness_seconds=1")


def rules(path: Path) -> Path:
    documents: list[dict[str, Any]] = [
        {"name": "viewed", "filter": 'event.event_name == "page_view"'},
        {
            "name": "abandoned",
            "filter": 'event.event_name == "add_to_cart"',
            "sequence": {"not_followed_by": 'event.event_name == "checkout"', "within": "2s"},
        },
    ]
    document = {"version": 1, "actions": [{"type": "kafka"}], "on_missing_profile": "run"}
    path.write_text(yaml.safe_dump_all([found | document for found in documents]))
    return path


def produce(
    topics: Topics, partition: int, ids: Iterable[str], producer: Producer | None = None, **fields: Any
) -> None:
    """Events of now; the user is the id's first part."""
    own = producer or Producer({"bootstrap.servers": topics.kafka.bootstrap_servers})
    for event_id in ids:
        body = event(event_id.split("-")[0], event_id=event_id, timestamp=time.time_ns() // 1_000_000, **fields)
        own.produce(topics.events, orjson.dumps(body), body["user_id"].encode(), partition)
    assert own.flush(60) == 0


def fired(actions: Reader) -> set[tuple[str, str]]:
    """Rule and event id of each action so far."""
    actions.settle(0.2)
    return {
        (dict(message.headers())["rule"].decode(), orjson.loads(message.value())["event"]["event_id"])
        for message in actions.messages
    }


def shown_time(flink: FlinkCluster, topics: Topics, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    where = [f"--flink_master={flink.flink_master}", f"--job_name=test-{topics.tag}"]
    assert main(["status", *where, "--json"]) in (0, 1)  # records that are gone make it DEGRADED
    return dict(json.loads(capsys.readouterr().out)["time"])


def test_open_transactions_and_new_partitions_hold_the_time(
    kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path
) -> None:
    topics, admin = Topics(kafka), AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    flowing = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    with (
        reading(kafka, topics.actions) as actions,
        running(flink, topics, rules(tmp_path / "rules.yaml"), *QUICK, "--partition_discovery_seconds=8") as job_id,
        again_and_again(lambda: produce(topics, FLOWING, [f"other-{time.time_ns()}"], flowing), lambda: 0.2),
    ):
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topics.tag})
        producer.init_transactions()
        produce(topics, 0, ["buyer-cart", "leaver-cart"], event_name="add_to_cart")
        producer.begin_transaction()
        produce(topics, 0, ["buyer-checkout"], producer, event_name="checkout")

        def holds() -> bool:
            metrics = take_snapshot(flink.rest, job_id, 0).metrics
            behind_ms = max(metrics.get("partition.0.time_behind_ms", [0]))
            # Behind by more than the sequence, its lateness and the idleness together.
            return metrics.get("partition.0.time_hold") == [2] and behind_ms > 8000

        eventually(holds, "the open transaction holds the time", 90, 0.5)
        assert not {found for found in fired(actions) if found[0] == "abandoned"}
        producer.commit_transaction()
        # The job looks for partitions every 8 s. Until then the time waits for what a new one holds.
        admin.create_partitions([NewPartitions(topics.events, PARTITIONS + 1)])[topics.events].result()
        eventually(
            lambda: PARTITIONS in admin.list_topics(topics.events).topics[topics.events].partitions,
            "the new partition is there",
        )
        produce(topics, 0, ["mover-cart"], event_name="add_to_cart")
        produce(topics, PARTITIONS, ["mover-checkout"], event_name="checkout")
        produce(topics, PARTITIONS, ["late-0", "late-1"])
        eventually(
            lambda: {("viewed", "late-0"), ("viewed", "late-1"), ("abandoned", "leaver-cart")} <= fired(actions),
            "the new partition is read, and what nothing followed ends",
            60,
        )
        produce(topics, 0, ["last-cart"], event_name="add_to_cart")
        eventually(lambda: ("abandoned", "last-cart") in fired(actions), "the time goes on", 60)
        ended = {event_id for rule, event_id in fired(actions) if rule == "abandoned"}
        assert ended == {"leaver-cart", "last-cart"}


def test_a_sequence_ends_after_a_restore_though_no_record_comes_any_more(
    kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path
) -> None:
    topics, path = Topics(kafka), rules(tmp_path / "rules.yaml")
    produce(topics, 0, ["leaver-cart"], event_name="add_to_cart")
    produce(topics, 0, ["leaver-view"])
    with reading(kafka, topics.actions) as actions:
        with running(flink, topics, path, *QUICK, "--watermark_idleness_ms=600000") as job_id:
            actions.until(1, 120)
            savepoint = flink.rest.stop(job_id)
        assert fired(actions) == {("viewed", "leaver-view")}
        with running(flink, topics, path, *QUICK, f"--savepoint_path={savepoint}"):
            actions.until(2, 60)
        assert fired(actions) == {("viewed", "leaver-view"), ("abandoned", "leaver-cart")}


def test_deleted_records_and_topics_cost_what_is_gone_and_are_counted(
    kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics, admin = Topics(kafka), AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    path = rules(tmp_path / "rules.yaml")

    def viewed(actions: Reader) -> list[str]:
        return sorted(event_id for _, event_id in fired(actions))

    def counted(skipped: int, resets: int) -> None:
        def shown() -> bool:
            found = shown_time(flink, topics, capsys)
            return (found["records_skipped"], found["position_resets"]) == (skipped, resets)

        eventually(shown, f"status shows {skipped} records skipped and {resets} resets", 60, 0.5)

    with reading(kafka, topics.actions) as actions:
        produce(topics, 0, [f"a-{number:02d}" for number in range(10)])
        with running(flink, topics, path) as job_id:
            actions.until(10, 120)
            savepoint = flink.rest.stop(job_id)

        # Trimmed behind the savepoint. Another partition has delivered nothing before.
        produce(topics, 0, [f"a-{number:02d}" for number in range(10, 20)])
        produce(topics, 1, ["b-0", "b-1", "b-2"])
        trim = TopicPartition(topics.events, 0, 15)
        admin.delete_records([trim])[trim].result()
        with running(flink, topics, path, "--starting_offsets=latest", f"--savepoint_path={savepoint}") as job_id:
            actions.until(18, 120)
            counted(5, 1)
            savepoint = flink.rest.stop(job_id)
        read = [*(f"a-{number:02d}" for number in (*range(10), *range(15, 20))), "b-0", "b-1", "b-2"]
        assert viewed(actions) == read

        # Deleted and created anew: offsets of the savepoint are behind the end.
        admin.delete_topics([topics.events])[topics.events].result()
        eventually(lambda: _created(kafka, topics.events), "the topic is created anew", 30, 0.5)
        produce(topics, 0, ["c-0", "c-1"])
        with running(flink, topics, path, "--starting_offsets=latest", f"--savepoint_path={savepoint}"):
            actions.until(20, 120)
            assert viewed(actions) == [*read, "c-0", "c-1"]
            counted(0, 2)  # both partitions that had records


def _created(kafka: LocalKafka, topic: str) -> bool:
    try:
        kafka.create_topic(topic, PARTITIONS)
    except LocalStackError:
        return False  # it is still being deleted
    return True
