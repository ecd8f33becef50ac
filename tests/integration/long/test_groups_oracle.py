"""The model of tests/groups_model.py on real Kafka and Flink: two kills, a savepoint, other rules and suppressions.

The first half of the events, with a kill in its midst; a savepoint and a resume; control records and another set of
rules; the second half, with the second kill. Between the halves an open transaction in each partition holds the
stream's time at the records' time, so that candidates wait for their groups across the savepoint. Quiet hours and
expiry go by the wall clock, which is not the test's here: the rules have none.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.cli.main import main
from runners.flink.local.broker import LocalKafka
from runners.flink.rest import FlinkRest
from tests.builders import event
from tests.flink_cluster import FlinkCluster, running_since, wait_for_checkpoint, wait_for_recovery
from tests.groups_model import DAY, HOUR, SECOND, Model, Says, Shares, first_set, records_of, second_set
from tests.integration.jobs import PARTITIONS, PATIENT, SUBMIT_S, Reader, Topics, inspect, launch, reading, submit
from tests.integration.test_webhooks import options as webhook_options
from tests.integration.user_api import serve_users
from tests.receiver import receiving
from tests.waiting import eventually
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import action_id
from transforms.domain.rules.suppressions import suppress_record, unsuppress_record

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3 * 3600)]

SEED = 27
SENT = ("fired", "released")
Rules = tuple[list[Says], dict[str, Shares]]


def without_clocks(rules: Rules) -> Rules:
    for says in rules[0]:
        says.quiet, says.expires = None, 0
    return rules


def write(folder: Path, rules: Rules, version: int) -> Path:
    """Rule files with Kafka actions; who unsubscribed gets nothing of the group ``soon``."""
    folder.mkdir()
    groups = {name: shares.document() for name, shares in rules[1].items()}
    groups["soon"]["unless"] = "user.unsubscribed"
    (folder / "groups.yaml").write_text(yaml.safe_dump({"groups": groups}))
    documents = [says.fields(version) | {"actions": [{"type": "kafka"}]} for says in rules[0]]
    (folder / "rules.yaml").write_text(yaml.safe_dump_all(documents))
    return folder


class Decisions:
    """The decision log, each of its decisions once: it is at least once."""

    def __init__(self, kafka: LocalKafka, topic: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic})
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        self.lines: set[str] = set()
        self.records = 0

    def read(self) -> int:
        messages = [message for message in self._consumer.consume(10_000, 0.5) if message.error() is None]
        for message in messages:
            made = orjson.loads(message.value())
            self.lines.add(" ".join([made["decision"], made["rule"], made["event_id"], made.get("winner", "")]))
        self.records += len(messages)
        return len(messages)

    def until(self, due: set[str], silent_s: float = 120) -> None:
        """Read until what is due is there and nothing else comes; fails when nothing comes for ``silent_s``."""
        came = time.monotonic()
        while (found := self.read()) or not (due <= self.lines or time.monotonic() > came + silent_s):
            came = time.monotonic() if found else came
        missing, too_much = sorted(due - self.lines), sorted(self.lines - due)
        assert (missing[:10], too_much[:10]) == ([], []), f"{len(missing)} missing, {len(too_much)} too much"

    def close(self) -> None:
        self._consumer.close()


class Job:
    """A job with topics of its own, which is killed, ended with a savepoint and resumed."""

    def __init__(self, kafka: LocalKafka, flink: FlinkCluster, rules: Path, *options: str) -> None:
        self.topics, self.flink, self.rest = Topics(kafka), flink, FlinkRest(flink.rest_url)
        self.log = f"decisions-{self.topics.tag}"
        kafka.create_topic(self.log, PARTITIONS)
        self.where = [f"--rules_topic=rules-{self.topics.tag}", f"--bootstrap_servers={kafka.bootstrap_servers}"]
        self.options = [
            self.where[0],
            f"--control_topic={self.topics.control}",
            f"--decisions_topic={self.log}",
            "--state_ttl_seconds=86400",
            f"--allowed_lateness_seconds={3 * HOUR // SECOND}",
            "--watermark_out_of_orderness_ms=0",
            "--delivery_guarantee=EXACTLY_ONCE",
            "--checkpointing_interval_ms=1000",
            *PATIENT,
            *options,
        ]
        self._rules = rules
        self.id = ""

    def start(self) -> None:
        self.id = submit(self.flink, self.topics, self._rules, *self.options)

    def kill_task_manager(self) -> None:
        since = running_since(self.rest, self.id)
        self.flink.kill_task_manager(0)
        self.flink.start_task_manager()
        wait_for_recovery(self.rest, self.id, since, 180)

    def wait_for_checkpoint(self) -> None:
        """What has been handled is not handled again."""
        wait_for_checkpoint(self.rest, self.id, self.rest.checkpoints(self.id)["counts"]["completed"] + 2, 120)

    def stop_and_resume(self) -> None:
        name, at = f"test-{self.topics.tag}", f"--flink_master={self.flink.flink_master}"
        stopped = launch("savepoint", "--stop", f"--job={name}", at)
        assert stopped.returncode == 0, stopped.stderr
        options = [f"--rules={self._rules}", f"--job_name={name}", "--detached", *self.topics.options(), *self.options]
        resumed = launch("resume", at, *options)
        assert resumed.returncode == 0, resumed.stderr
        found = re.search(r"job ([0-9a-f]{32}) is running", resumed.stderr)
        assert found, resumed.stderr
        self.id = found[1]
        self.rest.wait_for_state(self.id, {"RUNNING"}, SUBMIT_S)


@contextmanager
def steered(kafka: LocalKafka, flink: FlinkCluster, rules: Path, *options: str) -> Iterator[Job]:
    """A job that is not started yet. A failed assertion gets a note with the job's own failure."""
    job = Job(kafka, flink, rules, *options)
    try:
        yield job
    except AssertionError as error:
        error.add_note(f"job {job.id}: {job.rest.why(job.id) if job.id else 'not started'}")
        raise


def produce(job: Job, records: Iterable[Record]) -> None:
    producer = Producer({"bootstrap.servers": job.topics.kafka.bootstrap_servers, "linger.ms": 20, "acks": "all"})
    for number, record in enumerate(records):
        producer.produce(job.topics.events, record.value, record.key, timestamp=record.timestamp_ms)
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0


def open_transaction(job: Job, at_ms: int) -> Producer:
    """Write a record at which no rule fires to each partition; nothing behind it is read before a commit."""
    name = uuid.uuid4().hex
    producer = Producer(
        {
            "bootstrap.servers": job.topics.kafka.bootstrap_servers,
            "transactional.id": name,
            "transaction.timeout.ms": 900_000,
        }
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        user = f"nobody-{partition}"
        made = event(user, event_id=f"{user}-{name}", event_name="z", timestamp=at_ms)
        producer.produce(job.topics.events, orjson.dumps(made), user.encode(), partition, timestamp=at_ms)
    assert producer.flush(60) == 0
    return producer


def feed(model: Model, records: Iterable[Record]) -> None:
    for record in records:
        made = orjson.loads(record.value)
        t = min(made["timestamp"], record.timestamp_ms)
        model.event(made["user_id"], made["event_id"], made["event_name"], t, record.timestamp_ms)


def quiet_moment(model: Model, after_ms: int) -> int:
    """A time at which, and close to which, no group picks: just after a second, at whose end a shard is woken."""
    picks = {action.pick for user in model.users.values() for action in user.waiting}
    first_ms = after_ms - after_ms % SECOND + SECOND + 10
    times = range(first_ms, first_ms + HOUR, SECOND)
    return next(at_ms for at_ms in times if picks.isdisjoint(range(at_ms - 10, at_ms + 2)))


def suppressions(chance: random.Random, users: int, count: int) -> list[tuple[str, str, int | None]]:
    """User, group, and until when: 0 for good, None lifts; a time that is over suppresses nothing."""
    now_ms = round(time.time() * 1000)
    found = []
    for _ in range(count):
        number = chance.randrange(2, users)
        # Who unsubscribed is left out of "soon" by the profile.
        groups = ("*", "now", "daily") if is_unsubscribed(number) else ("*", "now", "soon", "daily")
        until = chance.choice((0, 0, now_ms + DAY, now_ms - HOUR, None))
        found.append((f"user-{number}", chance.choice(groups), until))
    return found


def is_unsubscribed(number: int) -> bool:
    return number % 10 == 0


def suppress(job: Job, inspections: Reader, wanted: list[tuple[str, str, int | None]]) -> None:
    """Write the control records, the first one by the command, and wait until the job has what they say."""
    where = [f"--control_topic={job.topics.control}", job.where[1]]
    assert main(["suppress", "user-1", "--group=*", *where]) == 0
    records = [
        (
            user.encode(),
            unsuppress_record(user, group) if until is None else suppress_record(user, group, until or None),
        )
        for user, group, until in wanted
    ]
    job.topics.produce(records, job.topics.control)
    users = sorted({user for user, _, _ in wanted} | {"user-1"})
    states = inspect(job.topics, inspections, users, 120)
    due: dict[str, dict[str, int | None]] = defaultdict(dict)
    for user, group, until in [("user-1", "*", 0), *wanted]:
        due[user].pop(group, None)
        if until is not None and (until == 0 or until > time.time() * 1000):
            due[user][group] = until or None
    has = {
        user: {entry["group"]: entry["until"] for entry in states[user]["ruleState"].get("suppressed", [])}
        for user in users
    }
    now_ms = time.time() * 1000  # one that is over may be there until its user's turn
    assert {
        user: {group: until for group, until in has[user].items() if until is None or until > now_ms} for user in users
    } == {user: due[user] for user in users}
    assert main(["suppressed", "user-1", *where, f"--inspections_topic={job.topics.inspections}"]) == 0


def text(line: tuple[str, ...]) -> str:
    return " ".join(line)


def check_actions(actions: Reader, model: Model) -> set[tuple[str, str]]:
    """The actions that went out are those that the model sends, each once; returns rule and event of each."""
    went_out = Counter[tuple[str, str, str]]()
    for message in actions.settle():
        headers = {name: value.decode() for name, value in message.headers() or []}
        made = orjson.loads(message.value())["event"]
        went_out[headers["rule"], made["event_id"], headers["action-id"]] += 1
    assert max(went_out.values()) == 1
    sent = {(rule, event_id) for decision, rule, event_id, _ in model.lines if decision in SENT}
    assert {(rule, event_id) for rule, event_id, _ in went_out} == sent
    assert len(went_out) == len(sent)
    return sent


def test_job_does_what_the_docs_say_of_groups(
    kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count = request.config.getoption("oracle_events")
    users = max(20, count // 100)
    chance = random.Random(SEED)
    first_ms = (round(time.time() * 1000) // DAY - 3) * DAY
    records = list(records_of(chance, users, count, first_ms))
    halves = records[: count // 2], records[count // 2 :]
    first, second = without_clocks(first_set()), without_clocks(second_set())
    model = Model(*first)
    model.now = round(time.time() * 1000)
    unsubscribed = [f"user-{number}" for number in range(users) if is_unsubscribed(number)]
    for user in unsubscribed:
        model.users[user].suppressed["soon"] = 0
    feed(model, halves[0])
    between_ms = quiet_moment(model, halves[0][-1].timestamp_ms)
    model.pass_stream(between_ms)
    rules = write(tmp_path / "first", first, 1), write(tmp_path / "second", second, 2)
    known = {f"user-{number}": {"profile": {"unsubscribed": is_unsubscribed(number)}} for number in range(users)}
    began_s = time.monotonic()
    with (
        FlinkCluster(task_managers=1, slots=2) as flink,
        serve_users(known) as api,
        steered(kafka, flink, rules[0], f"--user_api_url={api}", "--parallelism=2") as job,
        reading(kafka, job.topics.actions) as actions,
        reading(kafka, job.topics.inspections) as inspections,
        reading(kafka, job.topics.dead_letters) as dead_letters,
    ):
        decisions = Decisions(kafka, job.log)
        produce(job, halves[0])
        first_end = open_transaction(job, between_ms)
        job.start()
        actions.until(sum(line[0] in SENT for line in model.lines) // 3, 600)
        job.kill_task_manager()
        second_begin = open_transaction(job, between_ms)
        first_end.commit_transaction(60)
        decisions.until({text(line) for line in model.lines})
        model.check_caps()
        waiting = sum(len(user.waiting) for user in model.users.values())
        assert waiting > 0
        job.wait_for_checkpoint()
        job.stop_and_resume()

        wanted = suppressions(chance, users, users // 5)
        suppress(job, inspections, wanted)
        for user, group, until in [("user-1", "*", 0), *wanted]:
            if until is None:
                model.users[user].suppressed.pop(group, None)
            else:
                model.users[user].suppressed[group] = until
        assert main(["rules", "publish", str(rules[1]), *job.where, "--backtest_events=0", "--yes"]) == 0
        status = ["rules", "status", *job.where, f"--audit_topic={job.topics.audit}", "--wait=120"]
        assert main(status) == 0
        model.change(*second)
        job.wait_for_checkpoint()

        before = len(model.lines)
        feed(model, halves[1])
        model.pass_stream(records[-1].timestamp_ms + HOUR)
        produce(job, halves[1])
        second_begin.commit_transaction(60)
        due = [sum(line[0] in SENT for line in model.lines[part]) for part in (slice(before), slice(before, None))]
        actions.until(due[0] + due[1] // 3, 600)
        job.kill_task_manager()
        decisions.until({text(line) for line in model.lines})
        sent = check_actions(actions, model)
        assert dead_letters.settle(1) == []

        user_of = {(made := orjson.loads(record.value))["event_id"]: made["user_id"] for record in records}
        silent = {user for user, state in model.users.items() if state.suppressed.get("*") == 0}
        late = {orjson.loads(record.value)["event_id"] for record in halves[1]}
        assert silent
        assert not [event_id for _, event_id in sent if event_id in late and user_of[event_id] in silent]
        decided = Counter(line[0] for line in model.lines)
        print(
            f"\n{count:,} events of {users:,} users, {time.monotonic() - began_s:.0f} s: {len(sent):,} actions, "
            f"{len(decisions.lines):,} decisions in {decisions.records:,} records, {waiting:,} candidates across the "
            f"savepoint, {len(wanted):,} control records, {len(silent):,} users silent for good\n{dict(decided)}"
        )
        decisions.close()


def test_a_receiver_that_is_away_gets_nothing_that_expired(kafka: LocalKafka, tmp_path: Path) -> None:
    """It refuses, the job is killed, and both come back when the webhooks of one rule have expired."""
    users = [f"user-{number}" for number in range(30)]
    expires_s = 20
    with receiving() as receiver, FlinkCluster(task_managers=1, slots=2) as flink:
        receiver.answers = dict.fromkeys(("/brief", "/patient"), lambda: 503)
        flags = webhook_options(tmp_path, receiver, "brief", "patient")
        rules = [
            {"name": name, "version": 1, "filter": "true", "on_missing_profile": "run", "group": "all"}
            | {"actions": [{"type": "webhook", "destination": name}]}
            for name in ("brief", "patient")
        ]
        rules[0]["expires"] = f"{expires_s}s"
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump_all([{"groups": {"all": {}}}, *rules]))
        with steered(kafka, flink, tmp_path / "rules.yaml", *flags) as job:
            job.start()
            made = [event(user, event_id=user, timestamp=round(time.time() * 1000)) for user in users]
            job.topics.produce([(body["user_id"].encode(), orjson.dumps(body)) for body in made])
            ids = {rule: {action_id(user, user, rule, 1, "webhook") for user in users} for rule in ("brief", "patient")}
            decisions = Decisions(kafka, job.log)
            # Not all are tried: the destination's breaker opens.
            fired = {f"fired {rule} {user} " for rule in ids for user in users}
            eventually(lambda: decisions.read() >= 0 and fired <= decisions.lines, "all are decided", 120)
            receiver.until(lambda: len(receiver.ids("/brief")) > 0, 120)
            over_s = time.time() + expires_s
            job.wait_for_checkpoint()
            since = running_since(job.rest, job.id)
            flink.kill_task_manager(0)
            eventually(lambda: time.time() > over_s, "expired", expires_s + 60)
            tried = len(receiver.ids("/brief"))  # also by a worker that has outlived its TaskManager
            receiver.answers = {}
            flink.start_task_manager()
            wait_for_recovery(job.rest, job.id, since, 180)
            due = {f"expired brief {user} " for user in users} | {f"delivered patient {user} " for user in users}
            eventually(lambda: decisions.read() >= 0 and due <= decisions.lines, "expired and delivered", 180)
            assert ids["patient"] <= set(receiver.ids("/patient"))
            assert len(receiver.ids("/brief")) == tried
            assert not [line for line in decisions.lines if line.startswith("delivered brief")]
            decisions.close()
            print(f"\n{len(users)} webhooks expired after {tried} tries, {len(users)} without expires were delivered")
