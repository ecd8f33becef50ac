"""The launcher as a user meets it: a local cluster of its own, DirectRunner on a real broker."""

import re
import signal
import time
from pathlib import Path

import orjson
import pytest

from pipeline.embedded.stream import bundled_records
from pipeline.errors import OptionError
from pipeline.launch.options import parse
from pipeline.launch.preflight import check_topics
from runners.flink.local.broker import LocalKafka
from tests.builders import NOW_MS
from tests.integration.jobs import Topics, launch, reading
from tests.integration.launchers import interrupt, nothing_is_left, started

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("fatal", [signal.SIGINT, signal.SIGKILL], ids=lambda fatal: fatal.name)
def test_without_flink_master_a_local_cluster_is_started_and_ended(
    kafka: LocalKafka, tmp_path: Path, fatal: signal.Signals
) -> None:
    topics = Topics(kafka)
    rules = tmp_path / "rule.yaml"
    rules.write_text("name: r\nversion: 1\nfilter: event.triggerable\nactions: [{type: kafka}]\n")
    topics.produce(
        [
            (
                b"u",
                orjson.dumps(
                    {"event_id": "e", "user_id": "u", "event_name": "n", "timestamp": NOW_MS, "triggerable": True}
                ),
            )
        ]
    )

    arguments = ("--runner=FlinkRunner", f"--rules={rules}", *topics.options())
    with started(tmp_path, *arguments) as (process, output, mark), reading(kafka, topics.actions) as actions:
        actions.until(1, 200)
        if fatal == signal.SIGINT:
            interrupt(process, mark, tmp_path)
        process.kill()
        nothing_is_left(mark, tmp_path)
    assert "Traceback" not in output.read_text()


def test_direct_runner_reads_a_real_topic_to_the_ends_found_at_launch(kafka: LocalKafka, tmp_path: Path) -> None:
    topics = Topics(kafka)
    topics.produce(bundled_records(events=500))
    rules = tmp_path / "rule.yaml"
    rules.write_text("name: r\nversion: 1\nfilter: event.triggerable\nactions: [{type: kafka}, {type: debug}]\n")

    done = launch(f"--rules={rules}", *topics.options())

    assert done.returncode == 0, done.stderr
    assert "from the starting offsets to the ends found now" in done.stderr
    good = [orjson.loads(value) for number, (_, value) in enumerate(bundled_records(events=500)) if number % 100 != 99]
    expected = {event["event_id"] for event in good if event["triggerable"]}
    printed = [
        orjson.loads(line.removeprefix("DEBUG EVENT ")) for line in done.stdout.splitlines() if "DEBUG EVENT" in line
    ]
    assert {body["event"]["event_id"] for body in printed} == expected
    with reading(kafka, topics.actions) as actions, reading(kafka, topics.dead_letters) as dead_letters:
        actions.until(len(expected), 10)
        assert {orjson.loads(message.value())["event"]["event_id"] for message in actions.settle(1)} == expected
        assert len(dead_letters.until(5, 10)) == 5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--starting_offsets=latest"], set()),
        (["--starting_offsets=earliest"], {"0", "1", "2", "3"}),
        (["--starting_offsets=timestamp", "--starting_timestamp_ms={two}"], {"2", "3"}),
    ],
)
def test_direct_runner_starts_at_the_given_position(
    kafka: LocalKafka, tmp_path: Path, options: list[str], expected: set[str]
) -> None:
    from confluent_kafka import Producer

    topics = Topics(kafka)
    # Of just now: a broker deletes what is older than its retention, whatever was produced when.
    first_ms = time.time_ns() // 1_000_000 - 60_000
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(4):
        event = {"event_id": str(number), "user_id": "u", "event_name": "n", "timestamp": NOW_MS, "triggerable": True}
        producer.produce(topics.events, orjson.dumps(event), b"u", timestamp=first_ms + 500 * number)
    producer.flush(10)
    rules = tmp_path / "rule.yaml"
    rules.write_text("name: r\nversion: 1\nfilter: event.triggerable\nactions: [{type: debug}]\n")

    done = launch(f"--rules={rules}", *topics.options(), *(option.format(two=first_ms + 1000) for option in options))

    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("DEBUG EVENT ")]
    assert {orjson.loads(line.removeprefix("DEBUG EVENT "))["event"]["event_id"] for line in lines} == expected


def test_direct_runner_goes_on_at_the_earliest_record_where_its_offset_is_out_of_range(
    kafka: LocalKafka, tmp_path: Path
) -> None:
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient

    topics, broker = Topics(kafka), {"bootstrap.servers": kafka.bootstrap_servers}
    producer = Producer(broker)
    for number in range(5):
        event = {"event_id": str(number), "user_id": "u", "event_name": "n", "timestamp": 1_704_067_200_000}
        producer.produce(topics.events, orjson.dumps(event), b"u", partition=0)
    assert producer.flush(10) == 0
    consumer = Consumer({**broker, "group.id": topics.group_id})
    consumer.commit(offsets=[TopicPartition(topics.events, 0, 1)], asynchronous=False)
    consumer.close()
    admin = AdminClient(broker)  # futures of one that nobody holds never end
    for future in admin.delete_records([TopicPartition(topics.events, 0, 3)]).values():
        future.result(30)
    rules = tmp_path / "rule.yaml"
    rules.write_text("name: r\nversion: 1\nfilter: 'true'\nactions: [{type: debug}]\n")

    done = launch(f"--rules={rules}", *topics.options())

    assert done.returncode == 0, done.stderr
    assert "offset 1 is out of range, the earliest is 3, reading goes on there; 2 offsets are gone" in done.stderr
    assert re.search(r"^partitions out of range +1\noffsets skipped +2$", done.stdout, re.MULTILINE)
    lines = [line for line in done.stdout.splitlines() if line.startswith("DEBUG EVENT ")]
    assert {orjson.loads(line.removeprefix("DEBUG EVENT "))["event"]["event_id"] for line in lines} == {"3", "4"}


def test_direct_runner_names_a_topic_that_is_not_there(kafka: LocalKafka) -> None:
    arguments = [f"--bootstrap_servers={kafka.bootstrap_servers}", "--events_topic=nothing", "--rules=r"]
    with pytest.raises(OptionError, match="--events_topic is 'nothing', --dead_letters_topic is"):
        check_topics(parse(arguments), [])
