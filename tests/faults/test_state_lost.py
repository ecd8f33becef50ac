"""Procedures of docs/incidents.md with a real job and its state on S3: back to an earlier savepoint, objects of a
checkpoint deleted, a region lost. The commands are those of the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from runners.flink.rest import TERMINAL_STATES
from tests import moto
from tests.builders import NOW_MS
from tests.faults.s3 import CREDENTIALS
from tests.faults.stack import Stack, within
from tests.integration.jobs import ROOT, Reader, Topics, inspect, launch, reading

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(1800)]

RULE = "name: every_event\nversion: 1\nfilter: event.event_name ~= nil\nactions: [{type: kafka}]\n"
USERS = [f"user-{number}" for number in range(100)]
PAGE = ROOT / "docs" / "incidents.md"
HISTORY = 1000


class Operator:
    """An operator with a terminal, and what was produced so far."""

    def __init__(self, stack: Stack, topics: Topics, folder: Path, around: ExitStack) -> None:
        self.stack, self.topics = stack, topics
        self.name = f"kept-{topics.tag}"
        self.rules = folder / "rules.yaml"
        self.rules.write_text(RULE)
        self.produced: list[str] = []
        self.actions: Reader = around.enter_context(reading(stack.kafka, topics.actions))
        self.inspections: Reader = around.enter_context(reading(stack.kafka, topics.inspections))

    def types(self, *command: str) -> str:
        """A command of event-trigger; what it prints."""
        done = launch(*command, f"--flink_master={self.stack.flink.flink_master}", deadline_s=400)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def starts(self, *command: str) -> None:
        """The job, as `deploy` does with a cluster's flags."""
        options = [f"--rules={self.rules}", f"--job_name={self.name}", f"--control_topic={self.topics.control}"]
        options += ["--delivery_guarantee=EXACTLY_ONCE", "--checkpointing_interval_ms=3000", "--detached"]
        options += ["--parallelism=4", "--user_shards=8", f"--history_size={HISTORY}", "--workers_per_task_manager=1"]
        self.types(*command, *options, *self.topics.options())

    def shell(self, script: str) -> str:
        """A block of the page in a shell with AWS's command line, whose AWS is moto."""
        packages = moto.packages()
        environment = {
            **os.environ,
            **CREDENTIALS,
            "PATH": f"{packages / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(packages),
            "AWS_ENDPOINT_URL": self.stack.s3.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def job_id(self) -> str:
        """The newest job's."""
        jobs = [job for job in self.stack.flink.rest.jobs() if job["name"] == self.name]
        return str(max(jobs, key=lambda job: int(job["start-time"]))["jid"])

    def state(self) -> str:
        return str(self.stack.flink.rest.job(self.job_id)["state"])

    def produces(self, rounds: int) -> None:
        """Events of all users, and waits until each has had its action."""
        records = []
        for _ in range(rounds):
            for user in USERS:
                number = uuid.uuid4().hex  # is not compressed: Flink keeps small files of a state inside its metadata
                body = {
                    "event_id": number,
                    "user_id": user,
                    "event_name": "page_view",
                    "timestamp": NOW_MS + len(records),
                }
                records.append((user.encode(), orjson.dumps(body)))
                self.produced.append(f"{user} {number}")
        self.topics.produce(records)
        within(lambda: self.acted().keys() >= set(self.produced), lambda: f"{len(self.acted())} events", 300)

    def acted(self) -> Counter[str]:
        """How many actions each event has had."""
        bodies = (orjson.loads(message.value()) for message in self.actions.settle(0.3))
        return Counter(f"{body['event']['user_id']} {body['event']['event_id']}" for body in bodies)

    def known(self) -> list[str]:
        """The events of all users' histories, as the job has them."""
        states = inspect(self.topics, self.inspections, USERS, 120)
        return [f"{user} {row['event_id']}" for user in USERS for row in states[user]["history"]]


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Iterator[Operator]:
    with ExitStack() as around:
        operator = Operator(stack, Topics(stack.kafka), tmp_path, around)
        yield operator
        rest = stack.flink.rest
        for job in rest.jobs():
            if job["name"] == operator.name and job["state"] not in TERMINAL_STATES:
                rest.cancel(job["jid"])
                rest.wait_for_state(job["jid"], {"CANCELED"}, 120)


def block(section: str, number: int, **values: str) -> str:
    """A block of commands of a section of the page, with a cluster's values in place of the page's."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    script = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[number]
    for name, value in values.items():
        assert name in script, (name, script)
        script = script.replace(name, value)
    return script


def test_the_procedures_bring_the_state_back(operator: Operator) -> None:
    stack, bucket = operator.stack, operator.stack.s3.bucket
    operator.shell(f"aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled")
    operator.starts("--runner=FlinkRunner")
    operator.produces(20)

    # Back to last week's savepoint: what came since is handled again, once.
    before = operator.types("savepoint", f"--job={operator.name}")
    at_first = set(operator.produced)
    operator.produces(20)
    brokers = f"--bootstrap_servers={stack.kafka.bootstrap_servers}"
    listed = operator.types("savepoints", "list", brokers, f"--events_topic={operator.topics.events}")
    assert [line.endswith("restorable: yes") for line in listed.splitlines() if before in line] == [True], listed
    operator.types("savepoint", "--stop", f"--job={operator.name}")
    operator.starts("resume", f"--savepoint_path={before}")
    within(lambda: operator.acted().total() == 3 * len(at_first), lambda: f"{operator.acted().total()} actions", 300)
    assert {name: count for name, count in operator.acted().items() if name in at_first and count != 1} == {}
    assert sorted(operator.known()) == sorted(operator.produced)

    # All objects of the job's checkpoints are deleted, and it has to start again.
    checkpoints = f"checkpoints/{operator.job_id}/"
    for _ in range(2):
        stack.flink.kill_task_manager(0)
    assert stack.s3.keys(checkpoints) != []
    operator.shell(f"aws s3 rm --recursive --only-show-errors s3://{bucket}/{checkpoints}")
    assert stack.s3.keys(checkpoints) == []
    for _ in range(2):
        stack.flink.start_task_manager()
    within(
        lambda: "No such file" in stack.flink.rest.why(operator.job_id),
        lambda: stack.flink.rest.why(operator.job_id),
        180,
    )
    operator.shell(
        block(
            "Objects of a checkpoint were deleted",
            1,
            **{
                "$NAME-checkpoints-$ACCOUNT": bucket,
                "$NAME/checkpoints/$JOB/": checkpoints,
            },
        )
    )
    within(lambda: operator.state() == "RUNNING", operator.state, 180)
    acted = operator.acted()
    operator.produces(1)
    assert {name: count for name, count in operator.acted().items() if acted.get(name, 1) != count} == {}
    assert sorted(operator.known()) == sorted(operator.produced)

    # A region is lost: the copies of savepoints are there, Kafka is, and nothing else.
    saved = operator.types("savepoint", f"--job={operator.name}")
    at_savepoint = set(operator.produced)
    # As S3's replication would, with the keys as they are.
    operator.shell("aws s3 mb s3://copies && aws s3 mb s3://elsewhere")
    operator.shell(f"aws s3 sync --only-show-errors s3://{bucket}/savepoints/ s3://copies/old/savepoints/")
    operator.produces(1)
    stack.flink.rest.cancel(operator.job_id)
    stack.flink.rest.wait_for_state(operator.job_id, {"CANCELED"}, 120)
    for folder in ("savepoints", "checkpoints"):
        operator.shell(f"aws s3 rm --recursive --only-show-errors s3://{bucket}/{folder}/")
    operator.shell(
        block(
            "A region is lost",
            0,
            **{
                "s3://$NAME-savepoints-replica-$ACCOUNT/$NAME/": "s3://copies/old/",
                "s3://$NEW-savepoints-$ACCOUNT/$NEW/": "s3://elsewhere/new/",
            },
        )
    )
    acted = operator.acted()
    operator.starts(
        "--runner=FlinkRunner", f"--savepoint_path=s3://elsewhere/new/savepoints/{saved.rpartition('/')[2]}"
    )
    operator.produces(1)
    again = {name for name, count in operator.acted().items() if acted.get(name, 0) and count > acted[name]}
    assert again & at_savepoint == set()
    assert sorted(operator.known()) == sorted(operator.produced)
    operator.shell(f"aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Suspended")
