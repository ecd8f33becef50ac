"""Each trouble once: verdict, cause and exit code of ``status`` are right within fifteen seconds.

The stack is this folder's own, because its processes are stopped and killed. Seconds count from the trouble to the end
of the first command that tells it; they are written to docs/measurements/health.md.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml

from pipeline.job.health import DEGRADED, DOWN, HEALTHY
from tests.flink_cluster import FlinkCluster
from tests.health.job import RULE, Asked, a_rule, run, steady
from tests.integration.jobs import ROOT, Topics, running
from tests.integration.test_ui import page
from tests.kafka_broker import KafkaBroker
from tests.receiver import SECRET, receiving
from tests.waiting import eventually

pytestmark = pytest.mark.stack

WITHIN_S = 15.0
WELL = (HEALTHY, None, 0)
FIGURES = ROOT / "docs" / "measurements" / "health.md"
OPTIONS = ("--checkpointing_interval_ms=5000",)
measured: dict[str, tuple[str, str, float]] = {}


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture(scope="module")
def cluster() -> Iterator[FlinkCluster]:
    with FlinkCluster(task_managers=1, slots=2) as cluster:
        yield cluster


@pytest.fixture(scope="module", autouse=True)
def _figures() -> Iterator[None]:
    yield
    rows = [f"| {name} | {state} | {cause} | {took:.0f} |" for name, (state, cause, took) in measured.items()]
    heading = FIGURES.read_text("utf-8").partition("| trouble |")[0]
    table = ["| trouble | verdict | cause | seconds |", "|---|---|---|---|", *rows]
    FIGURES.write_text(heading + "\n".join(table) + "\n", "utf-8")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that hangs while the context is open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def told(name: str, asked: Asked, *wanted: tuple[str, str | None, int], cause: str) -> None:
    """The verdict comes in time, and says why; keep how long it took."""
    took_s = asked.until(*wanted, deadline_s=WITHIN_S)
    assert re.search(cause, asked.cause), asked.cause
    shown = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", asked.document["verdict"]["cause"])
    measured[name] = (asked.verdict[0], re.sub(r"\d[\d,.]*(?= s\b)", "N", shown), took_s)


def test_dead_broker_job_manager_and_task_manager(broker: KafkaBroker, cluster: FlinkCluster, tmp_path: Path) -> None:
    topics = Topics(broker)
    with running(cluster, topics, a_rule(tmp_path), *OPTIONS), steady(topics, 40):
        asked = Asked(cluster, topics)
        asked.until(WELL, deadline_s=60)
        with stopped(broker.pid):
            told("paused broker", asked, (DOWN, "KafkaSilent", 2), cause="no broker answers the job")
            assert asked.document["events"]["lag"] is None
        asked.until(WELL, deadline_s=120)

        with stopped(cluster.job_manager_pid):
            told("stopped JobManager", asked, (DOWN, "FlinkSilent", 2), cause="does not answer: no answer in time")
        asked.until(WELL, deadline_s=120)

        cluster.kill_task_manager()
        lost = (DOWN, "TaskManagerLost", 2)
        told("dead TaskManager", asked, lost, cause="0 of 1 TaskManagers|was not seen for")
        assert asked.document["events"]["lag"] is None
        cluster.start_task_manager()
        asked.until(WELL, deadline_s=120)


def test_a_steady_rate_is_shown_within_a_tenth(broker: KafkaBroker, cluster: FlinkCluster, tmp_path: Path) -> None:
    topics = Topics(broker)
    with running(cluster, topics, a_rule(tmp_path), *OPTIONS), steady(topics, 40):
        asked = Asked(cluster, topics)
        asked.until(WELL, deadline_s=60)
        give_up_s, rates = time.monotonic() + 60, list[float]()
        while time.monotonic() < give_up_s:
            rates.append(asked.status().document["events"]["handled_per_second"])
        assert all(36 <= rate <= 44 for rate in rates), rates
        assert asked.document["events"]["lag"] < 40


@pytest.mark.parametrize(
    "option",
    ["events", "actions", "dead_letters", "control", "inspections", "audit", "decisions"],
)
def test_a_typo_in_a_topic_is_refused(broker: KafkaBroker, cluster: FlinkCluster, tmp_path: Path, option: str) -> None:
    topics = Topics(broker)
    broker.create_topic(f"decisions-{topics.tag}")
    named = {"control": topics.control, "decisions": f"decisions-{topics.tag}", option: f"{topics.tag}-typo"}
    more = [f"--{name}_topic={topic}" for name, topic in named.items()]
    where = ["--runner=FlinkRunner", f"--flink_master={cluster.flink_master}", f"--job_name=typo-{topics.tag}"]
    started_s = time.monotonic()
    done = run(*where, "--detached", f"--rules={a_rule(tmp_path)}", *topics.options(), *more)
    assert done.returncode == 2
    assert f"--{option}_topic is '{topics.tag}-typo'" in done.stderr
    assert "is running" not in done.stderr
    assert [job for job in cluster.rest.jobs() if job["name"] == f"typo-{topics.tag}"] == []
    took_s = time.monotonic() - started_s
    measured[f"typo in --{option}_topic"] = ("refused", "the option, its value and what is allowed", took_s)


def test_a_topic_that_is_deleted_later(broker: KafkaBroker, cluster: FlinkCluster, tmp_path: Path) -> None:
    topics = Topics(broker)
    broker.create_topic(f"decisions-{topics.tag}")
    decisions = f"--decisions_topic=decisions-{topics.tag}"
    with running(cluster, topics, a_rule(tmp_path), decisions, *OPTIONS):
        asked = Asked(cluster, topics, decisions)
        asked.until(WELL, deadline_s=60)
        broker.delete_topic(f"decisions-{topics.tag}")
        wanted = (DOWN, "TopicMissing", 2)
        told("missing topic", asked, wanted, cause=f"topic 'decisions-{topics.tag}' of --decisions_topic")
        measured["missing topic"] = (
            DOWN,
            "topic NAME of --decisions_topic does not exist",
            measured["missing topic"][2],
        )


def test_a_launch_that_cannot_keep_its_job_running_says_why(
    broker: KafkaBroker, cluster: FlinkCluster, tmp_path: Path
) -> None:
    topics = Topics(broker)
    where = ["--runner=FlinkRunner", f"--flink_master={cluster.flink_master}", f"--job_name=bad-{topics.tag}"]
    options = ["--detached", f"--rules={a_rule(tmp_path)}", *topics.options(), "--worker_command=/nowhere/worker"]
    done = run(*where, *options, deadline_s=300)
    (job,) = [job for job in cluster.rest.jobs() if job["name"] == f"bad-{topics.tag}"]
    cluster.rest.cancel(job["jid"])
    assert done.returncode == 1
    assert "is running" not in done.stderr
    assert re.search(r"failed to start: .*(/nowhere/worker|No such file)", done.stderr), done.stderr


def test_an_open_breaker_of_the_user_api(broker: KafkaBroker, cluster: FlinkCluster, tmp_path: Path) -> None:
    topics = Topics(broker)
    rules = a_rule(tmp_path, RULE.replace("run", "wait"))
    options = ("--user_api_url=http://127.0.0.1:9", "--enrichment_retry_seconds=1", *OPTIONS)
    with running(cluster, topics, rules, *options), steady(topics, 40):
        asked = Asked(cluster, topics)
        told("open breaker", asked, (DEGRADED, "UserApiFails", 1), cause="its breaker is open")
    measured["open breaker"] = (
        DEGRADED,
        "the user API fails and is spared (its breaker is open), N users wait for it",
        measured["open breaker"][2],
    )


def test_a_destination_that_nobody_configured(broker: KafkaBroker, cluster: FlinkCluster, tmp_path: Path) -> None:
    topics = Topics(broker)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    with receiving() as receiver:
        crm = {"name": "crm", "url": f"{receiver.url}/crm", "secrets": [f"file:{tmp_path / 'secret'}"]}
        (tmp_path / "destinations.yaml").write_text(yaml.safe_dump({"destinations": [crm]}))
        webhook = RULE.replace("{type: kafka}", "{type: webhook, destination: crm}")
        options = [f"--destinations={tmp_path / 'destinations.yaml'}", "--allow_private_destinations", *OPTIONS]
        options += [f"--rules_topic=rules-{topics.tag}"]
        with running(cluster, topics, a_rule(tmp_path, webhook), *options), steady(topics, 40):
            asked = Asked(cluster, topics, f"--rules_topic=rules-{topics.tag}")
            asked.until(WELL, deadline_s=60)
            wrong = tmp_path / "new.yaml"
            wrong.write_text(
                webhook.replace("destination: crm", "destination: crn").replace("version: 1", "version: 2")
            )
            brokers = f"--bootstrap_servers={broker.bootstrap_servers}"
            where = [f"--rules_topic=rules-{topics.tag}", brokers, "--backtest_events=0", "--yes"]
            done = run("rules", "publish", str(wrong), *where)
            assert done.returncode == 0, done.stderr
            told(
                "unknown destination",
                asked,
                (DEGRADED, "DestinationUnknown", 1),
                cause="nobody configured destination crn",
            )
            states = {found["name"]: found["state"] for found in asked.document["destinations"]}
            assert states == {"crm": "ok", "crn": "unknown"}


def test_health_of_the_page_and_doctor(broker: KafkaBroker, cluster: FlinkCluster, tmp_path: Path) -> None:
    topics = Topics(broker)
    with running(cluster, topics, a_rule(tmp_path), *OPTIONS), steady(topics, 40):
        asked = Asked(cluster, topics)
        asked.until(WELL, deadline_s=60)
        done = run("doctor", "--running", *asked.options)
        assert "FAIL" not in done.stdout, done.stdout
        assert done.returncode == 0
        with page(*asked.options) as url:
            health = f"{url}/health"
            eventually(lambda: requests.get(health, timeout=10).json()["verdict"] == HEALTHY, "healthy", 60, 0.5)
            with stopped(cluster.job_manager_pid):
                started_s = time.monotonic()
                eventually(lambda: requests.get(health, timeout=10).status_code == 503, "503", WITHIN_S, 0.2)
                measured["stopped JobManager, /health"] = (DOWN, "503", time.monotonic() - started_s)
                assert "does not answer, not seen for" in requests.get(health, timeout=10).json()["cause"]
            eventually(lambda: requests.get(health, timeout=10).status_code == 200, "200 again", 120, 0.5)
