"""A job, commands and the page on a broker with TLS, logins, certificates and ACLs; ``make test-kafka-security``.

The ACLs are those of docs/kafka-security.md. Canaries among the secrets, of Kafka and all others, show whether one
leaves its place: by each form of a reference, and with the references in flags, in event-trigger.yaml and in variables.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import orjson
import pytest
import requests
from confluent_kafka.admin import AclOperation, ResourceType

from pipeline.cli.main import main
from tests.builders import event
from tests.canaries import Canaries, services, watching
from tests.flink_cluster import FlinkCluster, wait_for_checkpoint
from tests.integration.jobs import PATIENT, ROOT, Topics, launch, reading, running
from tests.secure_kafka import OPERATOR, PASSPHRASE, PASSWORD, USER, SecureKafka
from tests.waiting import eventually

pytestmark = pytest.mark.stack

WEBHOOKS = "{{type: webhook, destination: hook}}, {{type: webhook, name: refused, destination: echo}}"
RULE = f"name: offer\nversion: {{}}\nfilter: event.amount > 10\nactions: [{{{{type: kafka}}}}, {WEBHOOKS}]\n"
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
def by_way(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Canaries]:
    """The secrets of workers and of the page: behind ``env:`` for one way, behind ``file:`` for the other."""
    kinds = {"scram": "env", "certificate": "file"}
    return {way: Canaries(kind, tmp_path_factory.mktemp(f"secrets-{kind}")) for way, kind in kinds.items()}


@pytest.fixture(scope="module")
def cluster(secure: SecureKafka, by_way: dict[str, Canaries]) -> Iterator[FlinkCluster]:
    with pytest.MonkeyPatch.context() as patched:
        # The launcher, the JobManager, TaskManagers and workers of this test are one machine.
        patched.setenv("KAFKA_PASSWORD", PASSWORD)
        patched.setenv("KAFKA_PASSPHRASE", PASSPHRASE)
        with FlinkCluster(task_managers=1, slots=2, environment=by_way["scram"].environment()) as flink:
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


def command(*words: str, code: int = 0, more: Mapping[str, str] | None = None) -> str:
    """What a command prints; ``more`` are variables of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(more or {})},
    )  # fmt: skip
    assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout + done.stderr


@contextlib.contextmanager
def page(*options: str, more: Mapping[str, str]) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "ui", "--port=0", *options],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **more}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def without(options: Sequence[str], name: str) -> list[str]:
    return [option for option in options if not option.startswith(f"--{name}=")]


def sign_in(session: requests.Session, url: str, token: str) -> str:
    """Sign in to the page; what it shows then."""
    (form, *_) = re.findall(r'name="form" value="([^"]+)"', session.get(f"{url}/sign-in", timeout=60).text)
    return session.post(f"{url}/sign-in", {"form": form, "token": token}, timeout=60).text


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("way", ["scram", "certificate"])
def test_a_job_and_all_commands_and_no_secret_leaves_its_place(
    secure: SecureKafka,
    cluster: FlinkCluster,
    canaries: list[bytes],
    by_way: dict[str, Canaries],
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics, own = Topics(secure), by_way[way]
    secure.create_topic(f"decisions-{topics.tag}")
    encrypted = secure.mutual(passphrase="env:KAFKA_PASSPHRASE")
    user, job = (USER, secure.scram("env:KAFKA_PASSWORD")) if way == "scram" else (f"{OPERATOR}-2", encrypted)
    operator = secure.mutual()
    allow(secure, user, 1, topics)
    allow(secure, OPERATOR, 2, topics)
    names = [*without(topics.options(), "bootstrap_servers"), *more(topics)]
    isolation = {"scram": "none", "certificate": "process"}[way]
    token, key = own.reference("ui_token"), f"--dead_letters_key={own.reference('dead_letters_key')}"

    def named(*wanted: str) -> list[str]:
        return [option for option in names if option.partition("=")[0].removeprefix("--") in wanted]

    rules, destinations, config = tmp_path / "rule.yaml", tmp_path / "destinations.yaml", tmp_path / "config.yaml"
    shown = []
    with watching() as processes, reading(secure, topics.actions) as actions, services(own) as asked:
        destinations.write_text(asked.destinations())
        config.write_text(f"user_hash_key: {own.reference('user_hash_key')}\nrules_isolation: {isolation}\n")
        monkeypatch.setenv("EVENT_TRIGGER_DEAD_LETTERS_KEY", own.reference("dead_letters_key"))
        rules.write_text(RULE.format(1))
        publish = ["rules", "publish", str(rules), *named("rules_topic", "events_topic", "audit_topic"), *operator]
        shown.append(command(*publish))
        flags = [*without(topics.options(), "bootstrap_servers"), *more(topics), *job, "--decision_sample=1"]
        flags += [f"--config={config}", f"--destinations={destinations}", "--allow_private_destinations"]
        flags += [f"--user_api_url={asked.url}", f"--user_api_token={own.reference('user_api_token')}", *PATIENT]
        plan = tmp_path / "plan.json"
        done = launch("--runner=FlinkRunner", f"--rules={rules}", f"--plan_file={plan}", *flags)
        assert done.returncode == 0, done.stderr
        options = [*flags, "--checkpointing_interval_ms=1000", "--starting_offsets=earliest"]
        with running(cluster, topics, rules, *options, "--delivery_guarantee=EXACTLY_ONCE") as job_id:
            bodies = [event("ada", event_id=f"e{n}", timestamp=time.time_ns() // 10**6, amount=20) for n in range(5)]
            topics.produce((b"ada", orjson.dumps(body)) for body in bodies)
            topics.produce([(b"bob", b"no event")])
            actions.until(5, 300)
            eventually(lambda: asked.counts["hook"] >= 5 <= asked.counts["echo"], "all webhooks came", 300)
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
            shown.append(command("dead-letters", "list", *letters, more=own.environment("dead_letters_key")))
            assert "not_json" in shown[-1]
            assert "undelivered" in shown[-1]
            redrive = [*letters, *named("events_topic", "control_topic"), key, "--execute"]
            shown.append(command("dead-letters", "redrive", *redrive, more=own.environment("dead_letters_key")))
            hashed = f"--user_hash_key={own.reference('user_hash_key')}"
            shown.append(command("user-hash", "ada", hashed, more=own.environment("user_hash_key")))
            master = f"--flink_master={cluster.flink_master}"
            shown.append(
                command(
                    "doctor",
                    "--runner=FlinkRunner",
                    master,
                    "--parallelism=1",
                    *names,
                    *operator,
                    code=1,
                    more=own.environment("dead_letters_key"),
                )
            )
            assert "ok    Kafka" in shown[-1]  # the cluster has no free slots, and only that fails
            assert [line.split()[1] for line in shown[-1].splitlines() if line.startswith("FAIL")] == ["Slots"]
            shown.append(command("status", "--once", master, f"--job_name=test-{topics.tag}"))
            of_job = [master, f"--job_name=test-{topics.tag}", *names, *operator, f"--token={token}"]
            with (
                page(*of_job, more=own.environment("ui_token", "dead_letters_key")) as url,
                requests.Session() as session,
            ):
                shown.append(sign_in(session, url.rstrip("/"), own.texts["ui_token"]))
                assert "Sign out" in shown[-1]
                for path in ("/", "/decisions", "/dead-letters", "/user?user_id=ada"):
                    shown.append(session.get(f"{url.rstrip('/')}{path}", timeout=60).text)
            wait_for_checkpoint(cluster.rest, job_id, 1, 120)
            savepoint = cluster.rest.savepoint(job_id)
            for path in ("config", "plan", "exceptions", "checkpoints"):
                shown.append(requests.get(f"{cluster.rest_url}/jobs/{job_id}/{path}", timeout=30).text)
            shown.append(requests.get(f"{cluster.rest_url}/jobmanager/environment", timeout=30).text)
            shown += [requests.get(url, timeout=60).text for url in cluster.metrics_urls]
            assert re.search("webhook.*hook.*delivered", shown[-1])
    assert asked.wrong == []
    assert asked.counts["users"] > 0 < asked.counts["token"]
    written = {
        "plan": plan.read_bytes(),
        "shown": "\n".join(shown).encode(),
        "launcher": done.stderr.encode() + done.stdout.encode(),
        "arguments": b"\n".join(processes.arguments),
    }
    written |= {topic: b"\n".join(records_of(secure, topic)) for topic in topics_of(topics)}
    # State, savepoint, what the JobManager keeps of the job, and all logs.
    written |= {str(path): path.read_bytes() for path in cluster.work_dir.rglob("*") if path.is_file()}
    assert any(savepoint.rpartition("/")[2] in name for name in written)
    assert b"env:KAFKA_PASS" in b"".join(written.values()), "references are looked for in the wrong places"
    found = [*canaries, *own.parts()]
    assert {name for name, content in written.items() for canary in found if canary in content} == set()
    # Who was given a variable has it, and the commands that a user gave one. Nobody has what lies in a file.
    workers = {"JobManager", "TaskManager", "worker"}
    holders = {name: processes.holders([own.texts[name].encode()]) for name in own.texts}
    of_kind = {
        "ui_token": {"command"},
        "dead_letters_key": workers | {"command"},
        "user_hash_key": workers | {"command"},
    }
    expected = {name: of_kind.get(name, workers) if name != "access_token" else set() for name in holders}
    assert holders == {name: programs if own.kind == "env" else set() for name, programs in expected.items()}
    assert processes.holders([(PASSWORD if way == "scram" else PASSPHRASE).encode()]) == workers | {"command"}
    assert {"job server", "broker", *(["sandbox"] if isolation == "process" else [])} <= set(processes.environments)


def topics_of(topics: Topics) -> list[str]:
    """The topics that the job and the commands write."""
    others = [option.partition("=")[2] for option in more(topics)]
    return [topics.actions, topics.dead_letters, topics.inspections, topics.audit, *others]


def records_of(secure: SecureKafka, topic: str) -> list[bytes]:
    """Keys, values and headers of a topic's records."""
    with reading(secure, topic) as reader:
        return [
            b"\n".join([message.key() or b"", message.value() or b"", str(message.headers()).encode()])
            for message in reader.settle()
        ]


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
