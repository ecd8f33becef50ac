"""``event-trigger doctor``: its findings in working and in broken surroundings."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from pipeline.cli.doctor import checks
from pipeline.cli.doctor.checks import Doctor
from pipeline.cli.main import main
from pipeline.kafka.cluster_settings import KafkaAdminError
from pipeline.launch.findings import Finding
from pipeline.launch.options import Settings
from runners.flink import artifacts
from runners.flink.errors import LocalStackError
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from runners.flink.local.processes import free_ports
from runners.flink.overrides import BEAM_VERSION
from tests.integration.jobs import Topics
from transforms.adapters.lua import confinement

RUNNER = f"beam-runners-flink-1.19-{BEAM_VERSION}.jar"
ALL_IN_ORDER = {
    "/overview": {"flink-version": "1.19.1", "slots-available": 4, "taskmanagers": 2},
    "/jobmanager/config": [{"key": "state.checkpoints.dir", "value": "s3://bucket/checkpoints"}],
    "/jobmanager/environment": {
        "classpath": [
            f"/opt/lib/{name}"
            for name in (
                "beam-overrides.jar",
                RUNNER,
                "beam-sdks-java-core-2.70.0.jar",
                "event-trigger-connectors-7.jar",
            )
        ]
    },
    "/taskmanagers": {"taskmanagers": [{"path": f"pekko.tcp://flink@10.0.0.{n}:6122/user/rpc/tm_0"} for n in (1, 2)]},
    "/jobs/overview": {"jobs": []},
}


def findings(check: str, settings: Settings, **arguments: Any) -> list[Finding]:
    return [finding for finding in Doctor(settings, **arguments).run() if finding.check == check]


def of_flink(httpserver: HTTPServer, check: str, parallelism: int = 2, **changed: Any) -> Finding:
    for path, answer in (
        ALL_IN_ORDER | {f"/{name.replace('_', '/')}": answer for name, answer in changed.items()}
    ).items():
        httpserver.expect_request(path).respond_with_json(answer)
    settings = Settings(flink_master=f"{httpserver.host}:{httpserver.port}", parallelism=parallelism)
    (found,) = findings(check, settings)
    return found


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


@pytest.mark.slow
def test_without_options_only_this_machine_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 5 + ["skip"] * 5
    assert lines[-1] == "5 ok, 0 to look at, 0 failed"


def test_a_failure_ends_with_1_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)

    assert main(["doctor", f"--bootstrap_servers=127.0.0.1:{port}"]) == 1

    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert line == (
        f"FAIL  Kafka        127.0.0.1:{port}: Connection refused -> "
        "start the broker, open the way to it or correct the address"
    )


def test_an_option_that_cannot_be_used_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--parallelism=0"]) == 2
    assert main(["doctor", "--checkpoint_dir=bucket"]) == 2
    assert capsys.readouterr().err.splitlines()[1] == "error: --checkpoint_dir is 'bucket', allowed: a URL"


def test_a_key_of_letters_that_cannot_be_read_here_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOD", f"whsec_{'bGV0dGVycw' * 4}")
    monkeypatch.setenv("BAD", "s3cr3t")
    found = {
        name: findings("Letters' key", Settings(dead_letters_key=f"env:{name}")) for name in ("GOOD", "BAD", "NONE")
    }
    assert {name: finding.outcome for name, (finding,) in found.items()} == {
        "GOOD": "ok",
        "BAD": "warn",
        "NONE": "warn",
    }
    assert found["BAD"][0].message.startswith("env:BAD: ")
    assert "s3cr3t" not in found["BAD"][0].message
    assert findings("Letters' key", Settings()) == []


def test_a_key_of_hashes_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOD", "0123456789abcdef" * 2)
    monkeypatch.setenv("BAD", "s3cr3t")
    found = [findings("Users' hash key", Settings(user_hash_key=f"env:{name}")) for name in ("GOOD", "BAD")]
    assert [finding.outcome for (finding,) in found] == ["ok", "warn"]
    assert "s3cr3t" not in found[1][0].message


DESTINATIONS = """
destinations:
  - name: crm
    url: https://crm.example/hook
    secrets: [file:FOLDER/open, file:FOLDER/closed]
    headers: {X-Plain: file, X-Key: {secret: file:FOLDER/header}}
    oauth2:
      token_url: https://auth.example/token
      client_id: {secret: file:FOLDER/id}
      client_secret: file:FOLDER/oauth2
"""


def test_a_secret_in_a_file_that_everybody_may_read_is_a_warning_whatever_names_it(tmp_path: Path) -> None:
    for name in ("open", "header", "id", "oauth2", "password", "property", "token", "user"):
        (tmp_path / name).write_text("s3cr3t")
        (tmp_path / name).chmod(0o604)
    for name, mode in {"closed": 0o640, "key": 0o600}.items():
        (tmp_path / name).write_text("s3cr3t")
        (tmp_path / name).chmod(mode)
    destinations = tmp_path / "destinations.yaml"
    destinations.write_text(DESTINATIONS.replace("FOLDER", str(tmp_path)))
    settings = Settings(
        kafka_user=f"file:{tmp_path}/user",
        kafka_password=f"file:{tmp_path}/password",
        kafka_key=f"file:{tmp_path}/key",
        kafka_property=("linger.ms=5", f"com.acme.password=file:{tmp_path}/property"),
        user_api_token=f"file:{tmp_path}/token",
        user_hash_key="file:/nowhere",
        savepoint_path=f"file:{tmp_path}",
        destinations=destinations,
    )
    found = findings("Secrets", settings)
    assert {finding.outcome for finding in found} == {"warn"}
    assert sorted(finding.message for finding in found) == sorted(
        f"{name} refers to file:{tmp_path}/{file}, which every user of this machine may read"
        for name, file in {
            ("--kafka_user", "user"),
            ("--kafka_password", "password"),
            ("--kafka_property", "property"),
            ("--user_api_token", "token"),
            *(("destination 'crm'", file) for file in ("open", "header", "id", "oauth2")),
        }
    )


def test_a_broken_file_of_destinations_is_a_failure(tmp_path: Path) -> None:
    destinations = tmp_path / "destinations.yaml"
    destinations.write_text("destinations: [{name: crm}]")
    found = findings("Destinations", Settings(destinations=destinations))
    assert {finding.outcome for finding in found} == {"FAIL"}
    assert any("destinations.yaml:1: destinations.0.url" in finding.message for finding in found)


def test_measures_that_do_not_hold_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(rules_isolation="process")
    monkeypatch.setattr(confinement, "MEASURES", (*confinement.MEASURES, "a measure of tomorrow"))
    (found,) = findings("Rules' processes", settings)
    assert found.outcome == "warn"
    assert found.message.startswith("missing here: ")
    assert "a measure of tomorrow;" in found.message
    assert findings("Rules' processes", Settings()) == []


def test_a_running_job_that_is_not_there_is_a_failure_named_as_its_section(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert main(["doctor", "--running", f"--flink_master=127.0.0.1:{port}"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL  FlinkSilent")]
    assert failed == [
        f"FAIL  FlinkSilent  Flink at 127.0.0.1:{port} does not answer: Connection refused -> "
        f"event-trigger doctor --flink_master=127.0.0.1:{port}; docs/runbook.md#flinksilent"
    ]
    assert main(["doctor", "--running"]) == 2
    assert capsys.readouterr().err.startswith("error: --running needs --flink_master")


def test_slots_that_the_running_job_has_are_no_failure(httpserver: HTTPServer) -> None:
    taken = {"flink-version": "1.19.3", "slots-available": 0, "taskmanagers": 1}
    for path, answer in (ALL_IN_ORDER | {"/overview": taken}).items():
        httpserver.expect_request(path).respond_with_json(answer)
    settings = Settings(flink_master=f"{httpserver.host}:{httpserver.port}")
    found = [findings("Slots", settings, running=running)[0].outcome for running in (False, True)]
    assert found == ["FAIL", "ok"]


@pytest.mark.parametrize(
    ("scheduler", "free", "outcome"), [("adaptive", 1, "warn"), ("adaptive", 0, "FAIL"), ("Default", 1, "FAIL")]
)
def test_the_adaptive_scheduler_needs_one_free_slot(
    httpserver: HTTPServer, scheduler: str, free: int, outcome: str
) -> None:
    overview = {"flink-version": "1.19.3", "slots-available": free, "taskmanagers": 1}
    configuration = [{"key": "jobmanager.scheduler", "value": scheduler}]
    given = ALL_IN_ORDER | {"/overview": overview, "/jobmanager/config": configuration}
    for path, answer in given.items():
        httpserver.expect_request(path).respond_with_json(answer)
    settings = Settings(flink_master=f"{httpserver.host}:{httpserver.port}", parallelism=2)
    assert findings("Slots", settings)[0].outcome == outcome


def test_json_is_a_finding_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0

    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {tuple(finding) for finding in found} == {("check", "outcome", "said", "advice")}
    assert found[5] == {"check": "Kafka", "outcome": "skip", "said": "no --bootstrap_servers", "advice": ""}


@pytest.mark.parametrize(("runner", "outcome"), [("DirectRunner", "warn"), ("FlinkRunner", "FAIL")])
def test_java_and_maven_are_needed_for_flink(monkeypatch: pytest.MonkeyPatch, runner: str, outcome: str) -> None:
    def no_java() -> str:
        raise LocalStackError("java: not found")

    monkeypatch.setattr(artifacts, "java", no_java)
    monkeypatch.setattr(artifacts, "built_connectors", lambda: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    settings = Settings(runner=runner)

    assert [finding.outcome for finding in findings("Java", settings) + findings("Maven", settings)] == [
        outcome,
        outcome,
    ]


def test_a_cluster_in_order(httpserver: HTTPServer) -> None:
    checks = ("Flink", "Slots", "Connectors", "Workers' ports", "Checkpoints")
    assert [of_flink(httpserver, check).outcome for check in checks] == ["ok"] * 5


@pytest.mark.parametrize(
    ("check", "changed", "outcome", "message"),
    [
        ("Flink", {"overview": {"flink-version": "1.20.0", "slots-available": 4, "taskmanagers": 2}}, "FAIL", "1.20.0"),
        ("Flink", {"overview": {"errors": ["no"]}}, "FAIL", "flink-version"),
        ("Slots", {"overview": {"flink-version": "1.19.3", "slots-available": 1, "taskmanagers": 1}}, "FAIL", "1 free"),
        ("Connectors", {"jobmanager_environment": {"classpath": ["/opt/flink/lib/x.jar"]}}, "FAIL", "class path"),
        (
            "Connectors",
            {"jobmanager_environment": {"classpath": ["event-trigger-connectors.jar", RUNNER.replace("2.7", "2.6")]}},
            "FAIL",
            "has beam-runners-flink-1.19-2.60.0.jar, allowed: Beam 2.70.0",
        ),
        (
            "Connectors",
            {"jobmanager_environment": {"classpath": ["event-trigger-connectors.jar"]}},
            "FAIL",
            "no runner of Beam",
        ),
        (
            "Workers' ports",
            {
                "jobmanager_environment": {
                    "classpath": ["/lib/beam-sdks-java-core-2.70.0.jar", "/lib/beam-overrides.jar"]
                }
            },
            "warn",
            "listen on every interface",
        ),
        (
            "Workers' ports",
            {"jobmanager_environment": {"classpath": ["/lib/beam-sdks-java-core-2.70.0.jar"]}},
            "warn",
            "listen on every interface",
        ),
        ("Checkpoints", {"jobmanager_config": []}, "FAIL", "not set"),
        (
            "Checkpoints",
            {"jobmanager_config": [{"key": "state.checkpoints.dir", "value": "file:///tmp/c"}]},
            "FAIL",
            "file:///tmp/c, and TaskManagers are on 2 machines",
        ),
    ],
)
def test_a_cluster_with_a_problem(
    httpserver: HTTPServer, check: str, changed: dict[str, Any], outcome: str, message: str
) -> None:
    found = of_flink(httpserver, check, **changed)
    assert (found.outcome, bool(found.advice)) == (outcome, True)
    assert message in found.message


@pytest.mark.parametrize(
    ("status", "outcome", "advice"),
    [(200, "ok", ""), (404, "ok", ""), (401, "FAIL", "see --user_api_token"), (500, "FAIL", "allowed for a user")],
)
def test_the_user_api_gets_a_request_for_an_unknown_user(
    httpserver: HTTPServer, status: int, outcome: str, advice: str
) -> None:
    httpserver.expect_request("/secret-path/users/event-trigger-doctor/profile").respond_with_data("{}", status=status)
    (found,) = findings("User API", Settings(user_api_url=httpserver.url_for("/secret-path")))

    assert found.outcome == outcome
    assert found.advice.startswith(advice)
    assert "secret-path" not in found.message


def test_the_token_is_sent_and_an_unreadable_token_is_a_warning(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "open-sesame")
    expected = httpserver.expect_request(
        "/users/event-trigger-doctor/profile", headers={"Authorization": "Bearer open-sesame"}
    )
    expected.respond_with_data("{}")
    url = httpserver.url_for("/")
    assert findings("User API", Settings(user_api_url=url, user_api_token="env:API_TOKEN"))[0].outcome == "ok"

    (found,) = findings("User API", Settings(user_api_url=url, user_api_token="env:NO_SUCH_TOKEN"))
    assert found.outcome == "warn"
    assert "NO_SUCH_TOKEN" in found.message


def test_clocks_are_compared_with_what_the_user_api_says(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/users/event-trigger-doctor/profile").respond_with_data("{}")
    settings = Settings(user_api_url=httpserver.url_for("/"))
    (found,) = findings("Clocks", settings, clock=time.time)
    assert found.outcome == "ok"

    (found,) = findings("Clocks", settings, clock=lambda: time.time() + 60)
    assert found.outcome == "warn"
    assert re.match(r"the user API -(59|60)\.\d s; here it is 20", found.message)


class S3:
    """Says yes or no to objects, and remembers which it has."""

    def __init__(self, status: int) -> None:
        self.objects: set[str] = set()
        self.seen: list[str] = []
        s3 = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                s3.seen.append(self.path)
                s3.objects.add(self.path)
                self._answer(status)

            def do_DELETE(self) -> None:
                s3.objects.discard(self.path)
                self._answer(204)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def s3(request: pytest.FixtureRequest) -> Iterator[S3]:
    served = S3(getattr(request, "param", 200))
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_s3_is_written_to_and_left_as_it_was(s3: S3) -> None:
    (found,) = findings("S3", Settings(), checkpoint_dir="s3://bucket/some/checkpoints", s3_endpoint=s3.endpoint)

    assert found.outcome == "ok"
    (seen,) = s3.seen
    assert seen.startswith("/bucket/some/checkpoints/doctor-")
    assert s3.objects == set()


@pytest.mark.parametrize("s3", [403], indirect=True)
def test_s3_that_refuses_is_a_failure(s3: S3) -> None:
    (found,) = findings("S3", Settings(), checkpoint_dir="s3a://bucket", s3_endpoint=s3.endpoint)

    assert found.outcome == "FAIL"
    assert "403" in found.message


def test_what_java_s_clients_log_in_with_is_no_failure(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Mapping[str, str]) -> dict[str, int]:
        raise KafkaAdminError("no answer")

    monkeypatch.setattr(checks, "topic_partitions", refuse)
    settings = Settings(
        bootstrap_servers=f"{httpserver.host}:{httpserver.port}",
        kafka_property=("ssl.engine.factory.class=com.acme.X",),
    )
    (found,) = findings("Kafka", settings)
    assert (found.outcome, found.advice) == (
        "warn",
        "properties of Java's clients are for Flink; the topics were not looked at",
    )


@pytest.mark.stack
def test_a_real_stack_is_found_in_order(
    kafka: LocalKafka, flink: LocalFlink, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = Topics(kafka)
    options = [*topics.options(), f"--flink_master={flink.flink_master}", f"--control_topic={topics.control}"]

    assert main(["doctor", "--runner=FlinkRunner", "--parallelism=2", *options]) == 0
    shown = capsys.readouterr().out
    assert "warn" not in shown
    assert {line.split()[1] for line in shown.splitlines() if line.startswith("ok")} >= {
        "Kafka", "Topics", "Partitions", "Flink", "Slots", "Connectors", "Checkpoints"
    }  # fmt: skip

    assert main(["doctor", "--parallelism=3", *options, "--rules_topic=no-such-topic"]) == 1
    shown = capsys.readouterr().out
    assert f"warn  Partitions   '{topics.events}' has 4, --parallelism is 3" in shown
    assert "FAIL  Slots        2 free on 1 TaskManagers, --parallelism is 3" in shown
    assert "no-such-topic" not in shown  # the launch creates it

    missing = [option.replace(topics.actions, "no-such-actions") for option in options]
    assert main(["doctor", *missing]) == 1
    assert (
        "FAIL  Topics       'no-such-actions' does not exist -> create it or correct --actions_topic"
        in capsys.readouterr().out
    )
