"""State that is lost or not wanted any more: the commands of the docs, on a real job whose state is on S3 (moto).

The blocks come from docs/incidents.md word by word; shell variables stand for the buckets and the cluster, as in the
page. Its `deploy --terraform` is `resume --flink_master` here, as there is no EC2; both launch from a savepoint alike.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from runners.flink import artifacts
from runners.flink.rest import TERMINAL_STATES
from tests import moto
from tests.builders import oracle_rules, random_stream, record, rule_documents, user_api_of
from tests.docs.pages import Page
from tests.faults.s3 import CREDENTIALS, LocalS3
from tests.faults.stack import within
from tests.flink_cluster import FlinkCluster, running_since, wait_for_recovery
from tests.integration.jobs import ROOT, Reader, Topics, inspect, reading
from tests.integration.user_api import serve_users
from tests.kafka_broker import KafkaBroker
from tests.oracle import Oracle, SeenAction, action_differences, state_differences

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

PAGE = (ROOT / "docs" / "incidents.md").read_text()
ACCOUNT = "123456789012"
USERS = [f"user-{number:04d}" for number in range(40)]
EVENTS = 300
# With 10 a late event falls out at once, and its repeat is acted on again with the same id.
HISTORY_SIZE = 20


def commands(section: str, first_word: str) -> list[str]:
    """The lines of a section's shell blocks that begin with a word."""
    return [line for each in blocks(section) for line in each.splitlines() if line.startswith(first_word)]


def blocks(section: str) -> list[str]:
    """The shell blocks of a section."""
    (text,) = re.findall(rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return [block.text for block in Page("docs/incidents.md", text).blocks if block.language == "sh"]


@dataclass
class Job:
    """A job on Flink with state on S3, and the oracle of all events that it was given."""

    s3: LocalS3
    kafka: KafkaBroker
    rules: Path
    user_api: str
    topics: Topics
    actions: Reader
    inspections: Reader
    oracle: Oracle
    stream: Iterator[tuple[bytes, bytes]]
    bin: Path
    flink: FlinkCluster | None = None
    job_id: str = ""
    produced: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        """The job's options but for its cluster."""
        return [
            f"--rules={self.rules}",
            *self.topics.options(),
            f"--user_api_url={self.user_api}",
            f"--control_topic={self.topics.control}",
            "--user_shards=4",
            f"--history_size={HISTORY_SIZE}",
            "--state_ttl_seconds=315360000",
            "--checkpointing_interval_ms=1000",
            "--delivery_guarantee=EXACTLY_ONCE",
        ]

    @contextmanager
    def cluster(self, name: str) -> Iterator[FlinkCluster]:
        """A cluster whose state is in the buckets of that name."""
        checkpoints, savepoints = (f"{name}-{kind}-{ACCOUNT}" for kind in ("checkpoints", "savepoints"))
        for bucket in (checkpoints, savepoints):
            self.s3.make_bucket(bucket, versioned=True)
        config = {
            **self.s3.settings,
            "state.checkpoints.dir": f"s3://{checkpoints}/{name}/checkpoints",
            "state.savepoints.dir": f"s3://{savepoints}/{name}/savepoints",
        }
        del config["high-availability.storageDir"]
        with FlinkCluster(plugins=[artifacts.s3_plugin()], config=config, environment=CREDENTIALS) as flink:
            self.flink = flink
            self.environment["NAME"] = name
            yield flink

    def feed(self, events: int) -> None:
        """Give the job events and wait until their effects are in a checkpoint."""
        records = [next(self.stream) for _ in range(events)]
        for key, value in records:
            self.oracle.feed(key, value, None, record(value, key).timestamp_ms)
        self.topics.produce(records)
        self.produced += events
        self.topics.wait_for_commits(self.produced, 120)

    def shell(self, command: str, **variables: str) -> str:
        """Run a line of the docs. Returns its standard output."""
        assert self.flink is not None
        python = Path(sys.executable).parent
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command.replace("localhost:8081", self.flink.flink_master)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={
                **os.environ,
                **CREDENTIALS,
                "PATH": f"{self.bin}:{python}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "AWS_ENDPOINT_URL": self.s3.endpoint,
                "ACCOUNT": ACCOUNT,
                "JOB": self.job_id,
                **self.environment,
                **variables,
            },
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def event_trigger(self, *arguments: str) -> str:
        """Run a command of the product against the cluster. Returns its standard output."""
        assert self.flink is not None
        return self.shell(" ".join(["event-trigger", *arguments, f"--flink_master={self.flink.flink_master}"]))

    def launch(self, *arguments: str) -> None:
        """Start the job and wait until it runs."""
        assert self.flink is not None
        self.event_trigger(*arguments, *self.options, "--detached")
        (running,) = [job for job in self.flink.rest.jobs() if job["state"] == "RUNNING"]
        self.job_id = running["jid"]

    def delete_checkpoints(self) -> None:
        """Delete all objects of the job's checkpoints and have it restart, until it fails for that."""
        assert self.flink is not None
        rest = self.flink.rest
        self.flink.kill_task_manager()  # or the next checkpoint would write some of them anew
        name = self.environment["NAME"]
        self.shell(f"aws s3 rm --quiet --recursive s3://{name}-checkpoints-{ACCOUNT}/{name}/checkpoints/{self.job_id}/")
        struck_ms = time.time() * 1000
        self.flink.start_task_manager()

        def fails() -> bool:
            return any(
                failure["timestamp"] > struck_ms and "No such file or directory" in failure["stacktrace"]
                for failure in rest.failures(self.job_id)
            )

        within(fails, lambda: rest.why(self.job_id), 180)

    def resume(self, path: str) -> None:
        """Start the job from a savepoint."""
        self.launch("resume", f"--savepoint_path={path}")

    def check(self, repeats: bool = False) -> None:
        """States and actions are the oracle's; with ``repeats`` some actions have come twice."""

        def differences() -> list[str]:
            states = inspect(self.topics, self.inspections, USERS, 120)
            seen = [SeenAction.of_kafka(message.value(), message.headers()) for message in self.actions.settle(2)]
            return state_differences(self.oracle, states) + action_differences(self.oracle, seen, repeats)

        within(lambda: differences() == [], lambda: "\n".join(differences()), 120)
        assert (len(self.actions.messages) > len(self.oracle.actions)) == repeats


@pytest.fixture
def job(kafka: KafkaBroker, tmp_path: Path) -> Iterator[Job]:
    """What a job needs besides a cluster."""
    rules, known, topics = tmp_path / "rules.yaml", user_api_of(USERS), Topics(kafka)
    rules.write_text(yaml.safe_dump_all(rule_documents("kafka")))
    aws = tmp_path / "bin" / "aws"
    aws.parent.mkdir()
    aws.write_text(f'#!/bin/sh\nPYTHONPATH={moto.packages()} exec {sys.executable} -m awscli "$@"\n')
    aws.chmod(0o755)
    with ExitStack() as stack:
        yield Job(
            s3=stack.enter_context(LocalS3()),
            kafka=kafka,
            rules=rules,
            user_api=stack.enter_context(serve_users(known)),
            topics=topics,
            actions=stack.enter_context(reading(kafka, topics.actions)),
            inspections=stack.enter_context(reading(kafka, topics.inspections)),
            oracle=Oracle(oracle_rules(), known, history_size=HISTORY_SIZE),
            stream=random_stream(seed=5, users=len(USERS), events=10 * EVENTS, poison=False),
            bin=aws.parent,
        )


def test_objects_of_a_checkpoint_were_deleted(job: Job) -> None:
    with job.cluster("shop") as flink:
        job.launch("--runner=FlinkRunner")
        job.feed(EVENTS)
        savepoint = job.event_trigger("savepoint").strip()
        since = running_since(flink.rest, job.job_id)
        job.delete_checkpoints()

        section = "Objects of a checkpoint were deleted"
        (status,) = commands(section, "event-trigger status")
        (undelete,) = (each for each in blocks(section) if "delete-objects" in each)
        assert job.job_id in job.shell(f"{status} || true")  # it is not well
        job.shell(undelete)
        wait_for_recovery(flink.rest, job.job_id, since, 180)
        job.feed(EVENTS)
        job.check()

        # Gone for good, as nobody takes them back: the other way.
        job.delete_checkpoints()
        (cancel,) = commands(section, "event-trigger cancel")
        job.shell(cancel.replace("--terraform=$CLUSTER", f"--flink_master={flink.flink_master}"))
        job.resume(savepoint)
        job.check(repeats=True)


def test_last_weeks_savepoint(job: Job) -> None:
    with job.cluster("shop"):
        job.launch("--runner=FlinkRunner")
        job.feed(EVENTS)
        old = job.event_trigger("savepoint").strip()
        job.feed(EVENTS)
        new = job.event_trigger("savepoint").strip()
        job.feed(EVENTS)

        listed = job.event_trigger("savepoints list", *job.topics.options()[:2])
        assert listed.index(new) < listed.index(old), "the newest first"
        job.event_trigger("savepoint", "--stop")
        job.resume(old)
        job.check(repeats=True)


def test_a_region_is_lost(job: Job) -> None:
    replica = f"shop-savepoints-replica-{ACCOUNT}"
    job.s3.make_bucket(replica, versioned=True)
    with job.cluster("shop"):
        job.launch("--runner=FlinkRunner")
        job.feed(EVENTS)
        job.event_trigger("savepoint")
        # What S3's replication would do.
        job.shell(f"aws s3 sync --quiet s3://shop-savepoints-{ACCOUNT}/ s3://{replica}/")
        job.feed(EVENTS)
        checkpoint = job.event_trigger("cancel", "--yes").strip()
        moved = f"s3://{replica}/{checkpoint.partition('//')[2].partition('/')[2]}"
        folder, copy = (path.rpartition("/")[0] for path in (checkpoint, moved))
        job.shell(f"aws s3 cp --quiet --recursive {folder} {copy}")
        for kind in ("checkpoints", "savepoints"):
            job.shell(f"aws s3 rm --quiet --recursive s3://shop-{kind}-{ACCOUNT}/")

    with job.cluster("other") as flink:
        variables: Mapping[str, str] = {"NAME": "shop", "NEW": "other"}
        listing, copy = commands("A region is lost", "aws s3 ")
        (name,) = re.findall(r"PRE (savepoint-\S+)/", job.shell(listing, **variables))
        job.shell(copy, **variables)
        # A copy of a checkpoint wants its old bucket.
        with pytest.raises(AssertionError, match=f"No such file or directory: {folder}"):
            job.resume(moved)
        for failing in flink.rest.jobs():
            if failing["state"] not in TERMINAL_STATES:
                flink.rest.cancel(failing["jid"])
                flink.rest.wait_for_state(failing["jid"], set(TERMINAL_STATES), 60)
        job.resume(f"s3://other-savepoints-{ACCOUNT}/other/savepoints/{name}")
        job.check(repeats=True)
