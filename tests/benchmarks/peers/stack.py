"""One broker and one user API for all rows of a run, and the topics of a measurement."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import orjson
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.benchmarks.peers.analysis import Expected, Log
from tests.benchmarks.peers.systems import Wiring
from tests.benchmarks.peers.workload import HISTORY, PARTITIONS, STUB_DELAY_S, fires
from tests.benchmarks.user_api import UserApiProcess
from tests.kafka_broker import KafkaBroker

_BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}


class Topic:
    """A topic as the harness looks at it."""

    def __init__(self, bootstrap_servers: str, name: str) -> None:
        self.name = name
        self._places = [TopicPartition(name, number, 0) for number in range(PARTITIONS)]
        settings = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        self._consumer = Consumer(settings | {"isolation.level": "read_committed"})
        # To a client that reads what is committed, a partition ends where the first open transaction begins.
        self._watcher = Consumer(settings | {"isolation.level": "read_uncommitted"})

    def close(self) -> None:
        """Let the clients go."""
        self._consumer.close()
        self._watcher.close()

    def ends(self) -> list[int]:
        """The partitions' end offsets, open transactions included."""
        return [self._watcher.get_watermark_offsets(place, timeout=10)[1] for place in self._places]

    def records(self, limit: int | None = None, uncommitted: bool = False) -> Iterator[tuple[int, bytes]]:
        """Append time (ms) and value from the start to the end found now; ``limit`` stops early."""
        reader = self._watcher if uncommitted else self._consumer
        missing = {number: end for number, end in enumerate(self.ends()) if end > 0}
        reader.assign(self._places)
        given = idle = 0
        while missing and (limit is None or given < limit) and idle < 20:
            messages = reader.consume(2000, 0.5)
            # The last offset of a partition may be a transaction's marker, which no reader is given.
            idle = 0 if messages else idle + 1
            for message in messages:
                if message.error() is not None:
                    raise RuntimeError(f"{self.name}: {message.error()}")
                given += 1
                yield message.timestamp()[1], message.value()
            for place in reader.position([self._places[number] for number in missing]):
                if place.offset >= missing[place.partition]:
                    del missing[place.partition]
        reader.unassign()


class Stack:
    """The broker and the user API while the context is open."""

    def __enter__(self) -> Stack:
        self.kafka = KafkaBroker(heap_mb=1024, long_lived=True, config={"log.segment.bytes": "1073741824"}).__enter__()
        self.api = UserApiProcess(STUB_DELAY_S).__enter__()
        self._admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 0})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.api.__exit__(kind, error, trace)
        self.kafka.__exit__(kind, error, trace)

    def create(self, name: str) -> str:
        """Make a topic of four partitions whose records the broker stamps."""
        self.kafka.create_topic(name, PARTITIONS, _BROKER_TIME)
        return name

    def delete(self, *names: str) -> None:
        """Drop topics, so that the disk is not filled by what has been read."""
        for future in self._admin.delete_topics(list(names)).values():
            future.result(30)

    @contextmanager
    def wiring(self, events: str, checkpoint_s: float, users: int) -> Iterator[Wiring]:
        """A job's topics and names, gone at the end; the events stay."""
        tag = f"bench-{uuid.uuid4().hex[:8]}"
        actions, dead_letters, decisions = (self.create(f"{tag}-{name}") for name in ("actions", "dead", "decisions"))
        yield Wiring(
            bootstrap_servers=self.kafka.bootstrap_servers,
            broker_data=self.kafka.work_dir / "data",
            user_api_url=self.api.url,
            events=events,
            actions=actions,
            dead_letters=dead_letters,
            decisions=decisions,
            group=tag,
            checkpoint_s=checkpoint_s,
            users=users,
        )
        self.delete(
            actions,
            dead_letters,
            decisions,
            *(topic for topic in self._topics() if topic.startswith(f"changelog__{tag}")),
        )

    def _topics(self) -> list[str]:
        return list(self._admin.list_topics(timeout=10).topics)

    def topic(self, name: str) -> Topic:
        """A reader of a topic."""
        return Topic(self.kafka.bootstrap_servers, name)

    def committed(self, group: str, topic: str) -> list[int]:
        """Offsets that a group has committed."""
        consumer = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": group})
        try:
            places = consumer.committed([TopicPartition(topic, number) for number in range(PARTITIONS)], timeout=10)
            return [place.offset for place in places]
        finally:
            consumer.close()


def read_log(events: Topic, actions: Topic) -> Log:
    """What was to happen and what did."""
    log = Log()
    for at_ms, value in events.records():
        event = orjson.loads(value)
        if fires(event):
            log.expected[event["event_id"]] = Expected(at_ms)
    for at_ms, value in actions.records():
        log.actions.setdefault(orjson.loads(value)["event"]["event_id"], []).append(at_ms)
    return log


def check_actions(actions: Topic, limit: int = 500) -> None:
    """Look into some actions: a row that drops history or profile does other work than the others.

    Raises:
        ValueError: an action is not what it must be.
    """
    for _, value in actions.records(limit, uncommitted=True):  # some rows' are committed by the next checkpoint
        body = orjson.loads(value)
        event = body["event"]
        problems = [
            (not fires(event), "the rule does not fire for its event"),
            (body["userProfile"].get("user_id") != event["user_id"], "the profile is somebody else's"),
            (len(body["eventHistory"]) != HISTORY, f"{len(body['eventHistory'])} rows of history, not {HISTORY}"),
            (not body["currentVisit"], "no visit"),
        ]
        found = [text for wrong, text in problems if wrong]
        if found:
            raise ValueError(f"{actions.name}: action of event {event['event_id']}: {'; '.join(found)}")


def check_no_letters(dead_letters: Topic) -> None:
    """A row that rejects events or actions does less work than the others.

    Raises:
        ValueError: there is a dead letter.
    """
    for _, value in dead_letters.records(1):
        raise ValueError(f"{dead_letters.name}: {sum(dead_letters.ends())} dead letters, the first: {value[:500]!r}")
