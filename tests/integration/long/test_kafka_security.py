"""A job, commands and the page on a broker with TLS, logins, certificates and ACLs; ``make test-kafka-security``.

The ACLs are those of docs/kafka-security.md, and canaries among the secrets show whether one leaves its place.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pytest
import requests
from confluent_kafka.admin import AclOperation, ResourceType

from pipeline.cli.main import main
from tests.builders import event
from tests.flink_cluster import FlinkCluster, wait_for_checkpoint
from tests.integration.jobs import ROOT, Topics, launch, reading, running
from tests.secure_kafka import OPERATOR, PASSPHRASE, PASSWORD, USER, SecureKafka

pytestmark = pytest.mark.stack

RULE = "name: offer\nversion: {}\nfilter: event.amount > 10\nactions: [{{type: kafka}}]\n"
DOCS = ROOT / "docs" / "kafka-security.md"
_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,
}
_OPERATIONS = {"DescribeConfigs": "DESCRIBE_CONFIGS"}


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with SecureKafka(tmp_path_factory.mktemp("certificates"), acls=True) as broker:
        yield broker


@pytest.fixture(scope="module")
def canaries(secure: SecureKafka) -> list[bytes]:
    """Parts of all secrets, in the forms in which they would be written."""
    keys = [path.read_text().splitlines()[10] for path in (secure.key, secure.encrypted_key)]
    return [text.encode() for text in (PASSWORD[:12], PASSPHRASE, *keys)]


@pytest.fixture(scope="module")
def cluster(secure: SecureKafka) -> Iterator[FlinkCluster]:
    with pytest.MonkeyPatch.context() as patched:
        # The launcher, the JobManager, TaskManagers and workers of this test are one machine.
        patched.setenv("KAFKA_PASSWORD", PASSWORD)
        patched.setenv("KAFKA_PASSPHRASE", PASSPHRASE)
        patched.setenv("UI_TOKEN", "correct-horse-battery-staple-7")
        with FlinkCluster(task_managers=1, slots=2) as flink:
            yield flink


def allow(secure: SecureKafka, user: str, number: int, topics: Topics) -> None:
    """Give a user what table ``number`` of the documentation lists."""
    names = {option.partition("=")[0]: option.partition("=")[2] for option in [*topics.options(), *more(topics)]}
    section = DOCS.read_text().partition("## ACLs")[2].split("| resource |")[number]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    given = [row for row in rows if row[0].split()[0] in _KINDS]
    assert len(given) >= 10
    for kind, name, operations, _ in (row[:4] for row in given):
        text = name.strip("`")
        text = names.get(text, text) or "kafka-cluster"
        text = text.replace("RULES_TOPIC", names["--rules_topic"]).replace("DEAD_LETTERS_TOPIC", topics.dead_letters)
        wanted = [AclOperation[_OPERATIONS.get(word, word.upper())] for word in operations.split(", ")]
        secure.allow(user, _KINDS[kind.split()[0]], text, *wanted, prefix="prefix" in kind)


def more(topics: Topics) -> list[str]:
    return [
        f"--control_topic={topics.control}",
        f"--rules_topic=rules-{topics.tag}",
        f"--decisions_topic=decisions-{topics.tag}",
    ]


@contextlib.contextmanager
def arguments_of_processes() -> Iterator[set[bytes]]:
    """All argument lists that processes of this machine have while the context is open."""
    found: set[bytes] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    found.add(path.read_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def command(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout + done.stderr


@contextlib.contextmanager
def page(*options: str) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "ui", "--port=0", "--token=env:UI_TOKEN", *options],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def without(options: Sequence[str], name: str) -> list[str]:
    return [option for option in options if not option.startswith(f"--{name}=")]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("way", ["scram", "certificate"])
def test_a_job_and_all_commands_and_no_secret_leaves_its_place(
    secure: SecureKafka, cluster: FlinkCluster, canaries: list[bytes], way: str, tmp_path: Path
) -> None:
    topics = Topics(secure)
    secure.create_topic(f"decisions-{topics.tag}")
    encrypted = secure.mutual(passphrase="env:KAFKA_PASSPHRASE")
    user, job = (USER, secure.scram("env:KAFKA_PASSWORD")) if way == "scram" else (f"{OPERATOR}-2", encrypted)
    operator = secure.mutual()
    allow(secure, user, 1, topics)
    allow(secure, OPERATOR, 2, topics)
    names = [*without(topics.options(), "bootstrap_servers"), *more(topics)]

    def named(*wanted: str) -> list[str]:
        return [option for option in names if option.partition("=")[0].removeprefix("--") in wanted]

    rules = tmp_path / "rule.yaml"
    shown = []
    with arguments_of_processes() as arguments, reading(secure, topics.actions) as actions:
        rules.write_text(RULE.format(1))
        publish = ["rules", "publish", str(rules), *named("rules_topic", "events_topic"), *operator]
        shown.append(command(*publish))
        flags = [*without(topics.options(), "bootstrap_servers"), *more(topics), *job, "--decision_sample=1"]
        plan = tmp_path / "plan.json"
        done = launch("--runner=FlinkRunner", f"--rules={rules}", f"--plan_file={plan}", *flags)
        assert done.returncode == 0, done.stderr
        options = [*flags, "--checkpointing_interval_ms=1000", "--starting_offsets=earliest"]
        with running(cluster, topics, rules, *options, "--delivery_guarantee=EXACTLY_ONCE") as job_id:
            bodies = [event("ada", event_id=f"e{n}", timestamp=time.time_ns() // 10**6, amount=20) for n in range(5)]
            topics.produce((b"ada", orjson.dumps(body)) for body in bodies)
            topics.produce([(b"bob", b"no event")])
            actions.until(5, 120)
            rules.write_text(RULE.format(2))
            shown.append(command(*publish, "--backtest_events=10"))
            shown.append(command("rules", "status", "--wait=60", *named("rules_topic", "audit_topic"), *operator))
            assert "set 2" in shown[-1]
            shown.append(command("why", "--user=ada", *named("decisions_topic"), *operator))
            assert "offer" in shown[-1]
            inspected = named("control_topic", "inspections_topic")
            shown.append(command("inspect", "user", "ada", *inspected, *operator))
            assert "ada" in shown[-1]
            letters = [*named("dead_letters_topic"), *operator]
            shown.append(command("dead-letters", "list", *letters))
            assert "not_json" in shown[-1]
            redrive = [*letters, *named("events_topic", "control_topic"), "--execute", "--accept_unsigned"]
            shown.append(command("dead-letters", "redrive", *redrive))
            master = f"--flink_master={cluster.flink_master}"
            shown.append(
                command("doctor", "--runner=FlinkRunner", master, "--parallelism=1", *names, *operator, code=1)
            )
            assert "ok    Kafka" in shown[-1]  # the cluster has no free slots, and only that fails
            assert [line.split()[1] for line in shown[-1].splitlines() if line.startswith("FAIL")] == ["Slots"]
            shown.append(command("status", "--once", master, f"--job_name=test-{topics.tag}"))
            with page(master, f"--job_name=test-{topics.tag}", *names, *operator) as url:
                session = requests.Session()
                for path in ("/", "/decisions", "/dead-letters", "/user?user_id=ada"):
                    shown.append(session.get(f"{url.rstrip('/')}{path}", timeout=60).text)
            wait_for_checkpoint(cluster.rest, job_id, 1, 60)
            savepoint = cluster.rest.savepoint(job_id)
            for path in ("config", "plan", "exceptions", "checkpoints"):
                shown.append(requests.get(f"{cluster.rest_url}/jobs/{job_id}/{path}", timeout=30).text)
            shown.append(requests.get(f"{cluster.rest_url}/jobmanager/environment", timeout=30).text)
    written = {
        "plan": plan.read_bytes(),
        "shown": "\n".join(shown).encode(),
        "launcher": done.stderr.encode() + done.stdout.encode(),
        "arguments": b"\n".join(arguments),
    }
    # State, savepoint, what the JobManager keeps of the job, and all logs.
    written |= {str(path): path.read_bytes() for path in cluster.work_dir.rglob("*") if path.is_file()}
    assert any(savepoint.rpartition("/")[2] in name for name in written)
    assert b"env:KAFKA_PASS" in b"".join(written.values()), "references are looked for in the wrong places"
    assert {name for name, content in written.items() for canary in canaries if canary in content} == set()


def test_the_launch_says_when_the_password_is_wrong(
    secure: SecureKafka, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "canary-wrong")
    rules = tmp_path / "rule.yaml"
    rules.write_text(RULE.format(1))
    assert main(["--runner=FlinkRunner", f"--rules={rules}", "--rules_topic=r", *secure.scram("env:WRONG")]) == 2
    error = capsys.readouterr().err
    assert re.search("rules topic 'r': .*authentication.* -> see --kafka_user and --kafka_password", error, re.I)
    assert "canary" not in error
