"""Rules that change while the job runs, on real Kafka and Flink."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from pipeline.cli.main import main
from pipeline.kafka.rules_topic import RulesTopic
from runners.flink.local.broker import LocalKafka
from tests.builders import NOW_MS, event
from tests.flink_cluster import FlinkCluster, running_since, wait_for_checkpoint, wait_for_recovery
from tests.integration.jobs import Reader, Topics, launch, reading, running

pytestmark = pytest.mark.stack

FIRST = "name: greeting\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\n"
SECOND = "name: greeting\nversion: 2\nfilter: event.n >= 0\nactions: [{type: kafka, name: other}]\n"
FILES = "name: of_files\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\n"
USERS = [f"user-{number}" for number in range(100)]

Seen = tuple[str, str, str]


class Events:
    """Produces events until the end of the test, numbered in their order."""

    def __init__(self, topics: Topics) -> None:
        self.count = 0
        self._topics = topics
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._flow)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()

    def _flow(self) -> None:
        for number in itertools.count():
            # Of every user, so that every shard has some.
            bodies = [event(user, event_id=f"{number}-{user}", n=number, timestamp=NOW_MS + number) for user in USERS]
            self._topics.produce((body["user_id"].encode(), orjson.dumps(body)) for body in bodies)
            self.count = number + 1
            if self._ended.wait(0.5):
                return


def seen(actions: Reader, since: int, until: int) -> set[Seen]:
    """Rule, version and set from the headers of the actions of some rounds of events."""
    found = set()
    for message in actions.messages:
        if since <= orjson.loads(message.value())["event"]["n"] < until:
            headers = {name: value.decode() for name, value in message.headers()}
            found.add((headers["rule"], headers["rule-version"], headers["rule-set"]))
    return found


def fired_by(actions: Reader, events: Events, since: int, set_: Seen) -> None:
    """Wait for the actions of a hundred users' events from a round on; all must be of the same set."""
    until = events.count + 2
    missing = {f"{number}-{user}" for number in range(since, until) for user in USERS}
    while missing:
        before = len(actions.messages)
        for message in actions.until(before + 1, 60)[before:]:
            missing.discard(orjson.loads(message.value())["event"]["event_id"])
    assert seen(actions, since, until) == {set_}


def test_events_after_a_set_is_acknowledged_see_it_and_a_killed_task_manager_forgets_none(
    kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = Topics(kafka)
    rules_topic = f"rules-{topics.tag}"
    where = [f"--rules_topic={rules_topic}", f"--bootstrap_servers={kafka.bootstrap_servers}"]
    path, files = tmp_path / "rule.yaml", tmp_path / "files.yaml"
    files.write_text(FILES)

    def publish(text: str) -> None:
        path.write_text(text)
        assert main(["rules", "publish", str(path), *where]) == 0

    def live(number: int) -> None:
        capsys.readouterr()
        assert main(["rules", "status", *where, f"--audit_topic={topics.audit}", "--wait=60"]) == 0
        assert capsys.readouterr().out.endswith(f"set {number}: live in 16 of 16 shards\n")

    publish(FIRST)
    events = Events(topics)
    with (
        running(
            flink,
            topics,
            files,
            f"--rules_topic={rules_topic}",
            f"--control_topic={topics.control}",
            "--workers_per_task_manager=1",
            "--checkpointing_interval_ms=1000",
        ) as job_id,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.dead_letters) as dead_letters,
        events.flowing(),
    ):
        standby = threading.Thread(target=flink.start_task_manager)
        standby.start()
        live(1)
        fired_by(actions, events, 0, ("greeting", "1", "1"))

        publish(SECOND)
        live(2)
        fired_by(actions, events, events.count + 1, ("greeting", "2", "2"))

        topics.produce([(b"by-hand", b'{"rules": {"version": 1, "number": 9}}')], rules_topic)
        (letter,) = dead_letters.until(1, 30)
        assert orjson.loads(letter.value())["reason"] == "bad_control_record"
        assert orjson.loads(letter.value())["topic"] == rules_topic
        completed = flink.rest.checkpoints(job_id)["counts"]["completed"]
        wait_for_checkpoint(flink.rest, job_id, completed + 2, 30)

        standby.join()
        since, killed_at = running_since(flink.rest, job_id), events.count
        flink.kill_task_manager(0)
        wait_for_recovery(flink.rest, job_id, since, 120)
        fired_by(actions, events, killed_at, ("greeting", "2", "2"))

        assert main(["rules", "rollback", *where]) == 0
        live(3)
        fired_by(actions, events, events.count + 1, ("greeting", "1", "3"))
        assert len(dead_letters.settle(1)) == 1

    topic = RulesTopic(rules_topic, {"bootstrap.servers": kafka.bootstrap_servers})
    first, _, third = topic.read().sets
    assert third.rules == first.rules


def test_a_bounded_run_starts_with_the_newest_set_and_every_shard_takes_it(kafka: LocalKafka, tmp_path: Path) -> None:
    topics = Topics(kafka)
    rules_topic = f"rules-{topics.tag}"
    where = [f"--rules_topic={rules_topic}", f"--bootstrap_servers={kafka.bootstrap_servers}"]
    path = tmp_path / "rule.yaml"
    for text in (FIRST, SECOND):
        path.write_text(text)
        assert main(["rules", "publish", str(path), *where]) == 0
    topics.produce([(b"u1", orjson.dumps(event("u1", event_id="e1", n=1)))])
    topics.produce([(b"u1", b'{"forget": "u1"}')], rules_topic)

    done = launch(f"--rules_topic={rules_topic}", *topics.options())

    assert done.returncode == 0, done.stderr
    assert f"rules topic '{rules_topic}': starting with set 2\n" in done.stderr
    with reading(kafka, topics.actions) as actions, reading(kafka, topics.dead_letters) as dead_letters:
        actions.until(1, 10)
        assert seen(actions, 0, 9) == {("greeting", "2", "2")}
        assert len(actions.messages) == 1
        (letter,) = dead_letters.until(1, 10)
    assert orjson.loads(letter.value())["reason"] == "bad_control_record"
    assert main(["rules", "status", *where, f"--audit_topic={topics.audit}", "--wait=10"]) == 0
