"""docs/delivery.md on real Kafka and Flink, with a real receiver and killed TaskManagers."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from pathlib import Path

import orjson
import pytest
import yaml

from pipeline.cli.main import main
from runners.flink.local.broker import LocalKafka
from runners.flink.rest import FlinkRest
from tests.builders import event
from tests.flink_cluster import FlinkCluster, running_since, wait_for_checkpoint, wait_for_recovery
from tests.integration.jobs import Reader, Topics, inspect, reading, running
from tests.receiver import SECRET, Receiver, receiving
from transforms.domain.rules.actions import action_id

pytestmark = pytest.mark.stack

USERS = [f"user-{number:02d}" for number in range(50)]


def options(folder: Path, receiver: Receiver, *destinations: str, timeout: str = "5s") -> list[str]:
    """The destinations file, one path of the receiver each, and a rule that sends each event to all of them."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    listed = [
        {"name": name, "url": f"{receiver.url}/{name}", "secrets": [f"file:{secret}"], "timeout": timeout}
        | {"retry": {"first": "1s", "longest": "5s", "give_up_after": "1h"}}
        for name in destinations
    ]
    (folder / "destinations.yaml").write_text(yaml.safe_dump({"destinations": listed}))
    actions = [{"type": "webhook", "name": name, "destination": name} for name in destinations]
    rule = {"name": "all", "version": 1, "filter": "true", "actions": actions, "on_missing_profile": "run"}
    (folder / "rules.yaml").write_text(yaml.safe_dump(rule))
    return [f"--destinations={folder / 'destinations.yaml'}", "--allow_private_destinations"]


def produce(topics: Topics, numbers: range) -> None:
    now_ms = time.time_ns() // 1_000_000
    bodies = [
        event(user, event_id=f"{user}-{number}", timestamp=now_ms + number) for number in numbers for user in USERS
    ]
    topics.produce([(body["user_id"].encode(), orjson.dumps(body)) for body in bodies])


def expected_ids(destination: str, count: int) -> set[str]:
    return {action_id(user, f"{user}-{n}", "all", 1, destination) for user in USERS for n in range(count)}


def check_order(receiver: Receiver) -> None:
    """For each user and destination the first webhooks of each id came in order, and every signature is good."""
    bodies: dict[str, bytes] = {}
    by_user: dict[tuple[str, str], list[int]] = defaultdict(list)
    for webhook_id, path, body in receiver.seen:
        if webhook_id in bodies:
            continue
        bodies[webhook_id] = body
        user, _, number = orjson.loads(body)["event"]["event_id"].rpartition("-")
        by_user[user, path].append(int(number))
    assert all(numbers == sorted(numbers) for numbers in by_user.values())
    assert receiver.bad == []


def check_log(decisions: Reader, every: set[str]) -> None:
    """Wait until the decision log has every webhook as fired and delivered, and none as failed."""
    give_up = time.monotonic() + 60
    ids_by_decision: dict[str, set[str]] = defaultdict(set)
    while ids_by_decision["delivered"] != every:
        assert time.monotonic() < give_up, (
            f"{len(ids_by_decision['delivered'])} of {len(every)} are delivered by the log"
        )
        ids_by_decision = defaultdict(set)
        for message in decisions.settle(1):
            decision = orjson.loads(message.value())
            ids_by_decision[decision["decision"]].add(decision["action_id"])
            assert decision["decision"] != "delivered" or (decision["status"], decision["attempts"] > 0) == (200, True)
    assert ids_by_decision["fired"] == every
    assert set(ids_by_decision) <= {"fired", "delivered", "retried"}


def check_redriving(
    topics: Topics,
    receiver: Receiver,
    dead_letters: Reader,
    inspections: Reader,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``dead-letters redrive`` delivers webhooks that were refused or met a disabled destination, once it works again.

    The job has handled five events of each user, and had one dead letter for each of them.
    """

    def command(*arguments: str) -> str:
        where = [f"--bootstrap_servers={topics.kafka.bootstrap_servers}"]
        if arguments[0] == "dead-letters":
            where.append(f"--dead_letters_topic={topics.dead_letters}")
        if arguments[1] != "list" or arguments[0] == "destinations":
            where.append(f"--control_topic={topics.control}")
        assert main([*arguments, *where]) == 0
        return capsys.readouterr().out

    def crm() -> dict[str, list[bytes]]:
        """Bodies by id, in the order in which they came."""
        bodies_by_id = defaultdict(list)
        for webhook_id, path, body in list(receiver.seen):
            if path == "/crm":
                bodies_by_id[webhook_id].append(body)
        return bodies_by_id

    selection = ["--destination=crm", "--reason=undelivered"]
    receiver.answers["/crm"] = lambda: 400
    produce(topics, range(5, 6))
    dead_letters.until(len(USERS) * 7, 60)
    listed = json.loads(command("dead-letters", "list", *selection, "--json"))
    assert listed["reasons"] == {"undelivered": len(USERS)}
    assert {letter["user"] for letter in listed["letters"]} == set(USERS)
    assert {(letter["rule"], letter["detail"]) for letter in listed["letters"]} == {
        ("all", "after 1 attempts: HTTP 400")
    }
    receiver.answers["/crm"] = lambda: 200
    sending = ["--accept_unsigned", "--execute"]  # the job has no --dead_letters_key
    redriven = command("dead-letters", "redrive", *selection, "--rate=200", *sending)
    assert redriven.splitlines()[-1] == f"sent: {len(USERS)} actions, 0 events"
    refused = expected_ids("crm", 6) - expected_ids("crm", 5)
    receiver.until(lambda: all(len(crm()[action_id]) == 2 for action_id in refused), 60)
    assert all(first == again for first, again in (crm()[action_id] for action_id in refused))

    command("destinations", "disable", "crm")
    inspect(topics, inspections, USERS)  # then their shards have handled everything written before
    produce(topics, range(6, 7))
    records = dead_letters.until(len(USERS) * 10, 60)[len(USERS) * 7 :]  # a marker for each that was redriven, too
    letters = [letter for letter in map(orjson.loads, (message.value() for message in records)) if "reason" in letter]
    assert {letter["reason"] for letter in letters} == {"destination_disabled"}
    assert {letter["action"]["action_id"] for letter in letters} == {
        event_id for name in ("crm", "gone") for event_id in expected_ids(name, 7) - expected_ids(name, 6)
    }
    assert set(crm()) == expected_ids("crm", 6)
    command("destinations", "enable", "crm")
    states = {
        destination["name"]: destination["enabled"]
        for destination in json.loads(command("destinations", "list", "--json"))["destinations"]
    }
    assert states == {"crm": True, "gone": False}
    command("dead-letters", "redrive", "--destination=crm", "--reason=destination_disabled", *sending)
    receiver.until(lambda: set(crm()) == expected_ids("crm", 7), 60)


def test_every_webhook_arrives_in_order_while_task_managers_are_killed(kafka: LocalKafka, tmp_path: Path) -> None:
    topics = Topics(kafka)
    log = f"decisions-{topics.tag}"
    kafka.create_topic(log, 2)
    with (
        receiving() as receiver,
        FlinkCluster(task_managers=2, slots=2) as flink,
        reading(kafka, topics.dead_letters) as dead_letters,
        reading(kafka, log) as decisions,
    ):
        # One in four is told to come again: order must hold through retries, too.
        turns = iter(range(10**9))
        receiver.answers["/crm"] = lambda: 503 if next(turns) % 4 == 0 else 200
        flags = [*options(tmp_path, receiver, "crm"), f"--decisions_topic={log}"]
        job = running(
            flink, topics, tmp_path / "rules.yaml", *flags, "--parallelism=4", "--checkpointing_interval_ms=1000"
        )
        with job as job_id:
            rest = FlinkRest(flink.rest_url)
            for kill in range(2):
                producer = threading.Thread(target=produce, args=(topics, range(kill * 4, kill * 4 + 4)))
                before = len(receiver.seen)
                producer.start()
                # In the midst of it: some are sent, and not yet in a checkpoint.
                receiver.until(lambda before=before: len(receiver.seen) > before + 50, 60)
                since = running_since(rest, job_id)
                flink.kill_task_manager(kill % 2)
                flink.start_task_manager()
                producer.join()
                wait_for_recovery(rest, job_id, since, 90)
            every = expected_ids("crm", 8)
            receiver.until(lambda: every <= set(receiver.ids("/crm")), 120)
            assert set(receiver.ids("/crm")) == every
            check_order(receiver)
            assert dead_letters.settle(1) == []
            check_log(decisions, every)


def test_a_destination_that_hangs_or_is_gone_holds_up_nobody(
    kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = Topics(kafka)
    wake = threading.Event()
    with (
        receiving() as receiver,
        reading(kafka, topics.dead_letters) as dead_letters,
        reading(kafka, topics.control) as control,
        reading(kafka, topics.inspections) as inspections,
    ):

        def hangs() -> int:
            wake.wait(120)
            return 200

        receiver.answers = {"/slow": hangs, "/gone": lambda: 410}
        flags = options(tmp_path, receiver, "crm", "slow", "gone", timeout="60s")
        job = running(
            flink,
            topics,
            tmp_path / "rules.yaml",
            *flags,
            f"--control_topic={topics.control}",
            "--checkpointing_interval_ms=1000",
        )
        with job as job_id:
            rest = FlinkRest(flink.rest_url)
            produce(topics, range(3))
            receiver.until(lambda: set(receiver.ids("/crm")) == expected_ids("crm", 3), 60)
            wait_for_checkpoint(rest, job_id, rest.checkpoints(job_id)["counts"]["completed"] + 2, 30)
            # All this time nobody else was answered: 8 attempts are under way in each of two workers, no more.
            assert 0 < len(receiver.ids("/slow")) <= 16
            assert {message.value() for message in control.until(1, 30)} == {b'{"destination":"gone","enabled":false}'}
            dead_letters.until(len(USERS) * 3, 60)
            calls_before = len(receiver.ids("/gone"))
            produce(topics, range(3, 5))
            letters = [orjson.loads(message.value()) for message in dead_letters.until(len(USERS) * 5, 60)]
            assert {(letter["action"]["destination"], letter["rule"]) for letter in letters} == {("gone", "all")}
            assert {letter["action"]["action_id"] for letter in letters} == expected_ids("gone", 5)
            assert {letter["reason"] for letter in letters[len(USERS) * 3 :]} == {"destination_disabled"}
            assert len(receiver.ids("/gone")) == calls_before
            wake.set()
            receiver.until(lambda: expected_ids("slow", 5) <= set(receiver.ids("/slow")), 60)
            receiver.until(lambda: expected_ids("crm", 5) == set(receiver.ids("/crm")), 60)
            check_redriving(topics, receiver, dead_letters, inspections, capsys)
            check_order(receiver)
