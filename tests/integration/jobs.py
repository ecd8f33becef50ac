"""Runs the pipeline in tests: topics for one test, the launcher as users call it, readers of its outputs."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from runners.flink.errors import LocalStackError
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from runners.flink.rest import TERMINAL_STATES, FlinkRest

ROOT = Path(__file__).parent.parent.parent
PARTITIONS = 4
SUBMIT_S = 600
# Long deadlines: a test expects every profile, a slow machine fetches few a second, and a timed out call would open
# the circuit breaker.
PATIENT = ("--enrichment_deadline_seconds=600", "--user_api_timeout_seconds=600")


@dataclass
class Topics:
    """Names and partition counts of one test's topics."""

    kafka: LocalKafka
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __post_init__(self) -> None:
        for name in (self.events, self.actions, self.dead_letters, self.control, self.inspections, self.audit):
            self.kafka.create_topic(name, PARTITIONS if name in (self.events, self.actions) else 1)

    @property
    def events(self) -> str:
        return f"events-{self.tag}"

    @property
    def actions(self) -> str:
        return f"actions-{self.tag}"

    @property
    def dead_letters(self) -> str:
        return f"dead-letters-{self.tag}"

    @property
    def control(self) -> str:
        return f"control-{self.tag}"

    @property
    def inspections(self) -> str:
        return f"inspections-{self.tag}"

    @property
    def audit(self) -> str:
        return f"audit-{self.tag}"

    @property
    def group_id(self) -> str:
        return f"group-{self.tag}"

    def options(self) -> list[str]:
        """The flags that name the topics."""
        return [
            f"--bootstrap_servers={self.kafka.bootstrap_servers}",
            f"--events_topic={self.events}",
            f"--actions_topic={self.actions}",
            f"--dead_letters_topic={self.dead_letters}",
            f"--inspections_topic={self.inspections}",
            f"--audit_topic={self.audit}",
            f"--group_id={self.group_id}",
            f"--transactional_id_prefix={self.tag}",
        ]

    def produce(self, records: Iterable[tuple[bytes, bytes]], topic: str | None = None) -> None:
        """Write (key, value) records, by default events. Returns when the broker has confirmed them."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "linger.ms": 20, "acks": "all"})
        for number, (key, value) in enumerate(records):
            producer.produce(topic or self.events, value, key)
            if number % 1000 == 0:
                producer.poll(0)
        assert producer.flush(60) == 0

    def committed(self) -> int:
        """Sum of the offsets that the group has committed."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": self.group_id})
        try:
            partitions = [TopicPartition(self.events, partition) for partition in range(PARTITIONS)]
            return sum(max(partition.offset, 0) for partition in consumer.committed(partitions, timeout=10))
        finally:
            consumer.close()

    def lags(self) -> dict[int, int]:
        """By partition, how many records of the events topic the group has not committed yet."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": self.group_id})
        try:
            partitions = [TopicPartition(self.events, partition) for partition in range(PARTITIONS)]
            return {
                at.partition: consumer.get_watermark_offsets(at, timeout=10)[1] - max(at.offset, 0)
                for at in consumer.committed(partitions, timeout=10)
            }
        finally:
            consumer.close()

    def wait_for_commits(self, count: int, deadline_s: float) -> None:
        """Wait until a checkpoint has committed the offsets of ``count`` events."""
        give_up = time.monotonic() + deadline_s
        while self.committed() < count:
            assert time.monotonic() < give_up, f"{self.committed()} of {count} offsets committed after {deadline_s} s"


class Reader:
    """Reads a topic from its start with ``read_committed``."""

    def __init__(self, kafka: LocalKafka, topic: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": uuid.uuid4().hex,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        self.messages: list[Message] = []

    def until(self, count: int, deadline_s: float) -> list[Message]:
        """Read until there are ``count`` messages. Fails after ``deadline_s`` with the number read."""
        give_up = time.monotonic() + deadline_s
        while len(self.messages) < count:
            assert time.monotonic() < give_up, f"{len(self.messages)} of {count} messages after {deadline_s} s"
            self._poll(0.2)
        return self.messages

    def settle(self, quiet_s: float = 3.0) -> list[Message]:
        """Read until nothing has come for ``quiet_s``, to show that no more than expected comes."""
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < quiet_s:
            if self._poll(0.2):
                quiet_since = time.monotonic()
        return self.messages

    def close(self) -> None:
        self._consumer.close()

    def _poll(self, timeout_s: float) -> int:
        found = [message for message in self._consumer.consume(10_000, timeout_s) if message.error() is None]
        self.messages += found
        return len(found)


@contextmanager
def reading(kafka: LocalKafka, topic: str) -> Iterator[Reader]:
    """A reader that is closed at the end."""
    reader = Reader(kafka, topic)
    try:
        yield reader
    finally:
        reader.close()


def launch(*options: str, deadline_s: float = SUBMIT_S) -> subprocess.CompletedProcess[str]:
    """Run ``python -m pipeline`` with options to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=deadline_s,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def submit(flink: LocalFlink, topics: Topics, rules: Path, *options: str) -> str:
    """Start the pipeline on the cluster. Returns the Flink job id once every task runs."""
    done = launch(
        "--runner=FlinkRunner",
        f"--flink_master={flink.flink_master}",
        "--detached",
        f"--rules={rules}",
        f"--job_name=test-{topics.tag}",
        *topics.options(),
        *options,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"job ([0-9a-f]{32}) is running", done.stderr)
    assert found, done.stderr
    rest = FlinkRest(flink.rest_url)
    try:
        rest.wait_for_state(found[1], {"RUNNING"}, SUBMIT_S)
    except BaseException:
        rest.cancel(found[1])  # or it would take the slots of the tests that follow
        raise
    return found[1]


@contextmanager
def running(flink: LocalFlink, topics: Topics, rules: Path, *options: str) -> Iterator[str]:
    """Run the pipeline on the cluster while the context is open, then cancel it unless it has ended.

    A failed assertion gets a note with the job's own failure, if there is one.
    """
    job_id = submit(flink, topics, rules, *options)
    rest = FlinkRest(flink.rest_url)
    try:
        yield job_id
    except AssertionError as error:
        error.add_note(f"job {job_id}: {rest.why(job_id)}")
        raise
    finally:
        if rest.job(job_id)["state"] not in TERMINAL_STATES:
            with contextlib.suppress(LocalStackError):  # it may end by itself at this moment
                rest.cancel(job_id)
            rest.wait_for_state(job_id, set(TERMINAL_STATES), 60)


def control_record(name: str, user: str) -> tuple[bytes, bytes]:
    """Key and value of a record of the control topic, ``inspect`` or ``forget``."""
    return user.encode(), orjson.dumps({name: user})


def inspect(topics: Topics, reader: Reader, users: Sequence[str], deadline_s: float = 30) -> dict[str, Any]:
    """Ask the running job for the states of users through the control topic. Returns them by user."""
    before = len(reader.messages)
    topics.produce([control_record("inspect", user) for user in users], topics.control)
    found = reader.until(before + len(users), deadline_s)[before:]
    return {state["user_id"]: state for state in (orjson.loads(message.value()) for message in found)}
