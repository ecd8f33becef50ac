"""The main job in containers of the image, with a real Kafka: the TaskManager's container is killed, nothing is lost.

The containers have a read-only root, no capabilities and the host's network. What passes is written to
docs/measurements/image.md.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from infra.image.__main__ import USER
from infra.packages.__main__ import project_version
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import free_ports
from runners.flink.rest import FlinkRest
from tests.builders import oracle_of, rule_documents, user_api_of
from tests.figures import Figures
from tests.flink_cluster import running_since, wait_for_checkpoint, wait_for_recovery
from tests.image.containers import IMAGE, containers, inspected, podman
from tests.integration.jobs import PATIENT, Topics, reading
from tests.integration.test_main_job import RECORDS, USERS, check
from tests.integration.user_api import serve_users
from tests.kafka_broker import KafkaBroker
from tests.waiting import eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3600)]

FIGURES = Figures(
    "image",
    "# The image, measured\n\n`make test-image` writes this page. It runs the main job in containers of the image\n"
    "with a real Kafka and kills the TaskManager's container, then the pods of infra/kubernetes. Times are of a\n"
    "machine with two cores that also did other work.\n",
    (
        "image",
        "JobManager and TaskManager",
        "killed container",
        "outputs",
        "whole test",
        "pods of Kubernetes",
        "SIGTERM",
    ),
)


def test_the_image_has_its_user_health_check_labels_and_bill_of_materials() -> None:
    found = inspected("image", "inspect", IMAGE)
    assert found["Config"]["User"] == f"{USER}:{USER}"
    assert found["Config"]["Labels"]["org.opencontainers.image.version"] == project_version()
    assert found["Healthcheck"]["Test"] == ["CMD", "health"]
    seen = 'event-trigger --version; id -u; touch /opt/x 2>&1 | grep -o "Read-only"; cat /opt/event-trigger/bom*.json'
    with containers() as run:
        output = run.start("sh", "-c", seen, options=["--network=none"], wait=True)
    version, user, root, text = output.split("\n", 3)
    assert (version, user, root) == (project_version(), str(USER), "Read-only")
    bill = json.loads(text)
    names = {component["name"] for component in bill["components"]}
    assert {"openjdk-17-jre-headless", "apache-beam", "flink-dist", "event-trigger"} <= names
    size = f"{found['Size'] / 1e6:,.0f} MB, {len(bill['components'])} components in its bill of materials"
    FIGURES.record(image=size)


def test_nothing_is_lost_or_repeated_when_the_task_managers_container_is_killed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump_all(rule_documents("kafka")))
    oracle = oracle_of(RECORDS, user_api_of(USERS))
    rpc, rest_port, blob, prometheus = free_ports(4)
    properties = (
        f"jobmanager.rpc.address: 127.0.0.1\njobmanager.rpc.port: {rpc}\n"
        f"rest.address: 127.0.0.1\nrest.port: {rest_port}\nblob.server.port: {blob}\ntaskmanager.host: 127.0.0.1\n"
        f"metrics.reporter.prom.port: {prometheus}-{prometheus + 9}\n"
        "heartbeat.interval: 2000\nheartbeat.timeout: 20000\nrestart-strategy.exponential-delay.max-backoff: 5 s\n"
    )
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints").chmod(0o777)
    variables = {"FLINK_PROPERTIES": properties, "EVENT_TRIGGER_FLINK_MASTER": f"127.0.0.1:{rest_port}"}
    options = ["--network=host", f"--volume={tmp_path / 'checkpoints'}:/checkpoints", f"--volume={tmp_path}:/given:ro"]
    started = time.monotonic()
    with KafkaBroker() as kafka, containers() as run, serve_users(user_api_of(USERS)) as api:
        topics = Topics(kafka)
        start = partial(run.start, options=options, variables=variables)
        start("jobmanager")
        task_manager = start("taskmanager")
        rest = FlinkRest(f"http://127.0.0.1:{rest_port}")
        wait_for_task_managers(rest, 1)
        registered = f"registered {time.monotonic() - started:.0f} s after their start"
        with (
            reading(kafka, topics.actions) as actions,
            reading(kafka, topics.dead_letters) as dead_letters,
            reading(kafka, topics.inspections) as inspections,
        ):
            start(
                *("launch", "--detached", "--rules=/given/rules.yaml", f"--user_api_url={api}", *topics.options()),
                *(*PATIENT, f"--control_topic={topics.control}", "--parallelism=2"),
                *(
                    "--delivery_guarantee=EXACTLY_ONCE",
                    "--checkpointing_interval_ms=2000",
                    "--checkpoint_dir_is_shared",
                ),
                wait=True,
            )
            (job,) = rest.jobs()
            job_id = str(job["jid"])
            producer = threading.Thread(target=topics.produce, args=(RECORDS[:10_000],))
            producer.start()
            done = rest.checkpoints(job_id)["counts"]["completed"]
            wait_for_checkpoint(rest, job_id, done + 2, 300)
            since, killed = running_since(rest, job_id), time.monotonic()
            assert podman("kill", "--signal", "KILL", task_manager).returncode == 0
            start("taskmanager")
            wait_for_recovery(rest, job_id, since, 600)
            recovered = f"the TaskManager's; the job ran again {time.monotonic() - killed:.0f} s later"
            producer.join()
            topics.produce(RECORDS[10_000:])
            check(oracle, topics, actions, dead_letters, inspections)
            outputs = (
                f"{len(RECORDS):,} events, {len(oracle.actions):,} actions each once, dead letters and the state of "
                f"{len(USERS)} users: as the oracle says"
            )
        health = podman("exec", run.names[0], "health")
        assert (health.returncode, "HEALTHY" in health.stdout or "DEGRADED" in health.stdout) == (0, True), (
            health.stdout
        )
    FIGURES.record(
        JobManager_and_TaskManager=registered,
        killed_container=recovered,
        outputs=outputs,
        whole_test=f"{time.monotonic() - started:.0f} s",
    )


def wait_for_task_managers(rest: FlinkRest, count: int, deadline_s: float = 1200) -> None:
    def registered() -> bool:
        with contextlib.suppress(LocalStackError):
            return len(rest.task_managers()) == count
        return False

    eventually(registered, f"{count} TaskManagers", deadline_s, pause_s=0.5)
