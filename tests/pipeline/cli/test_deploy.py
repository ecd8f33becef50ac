"""``deploy`` takes the cluster's flags from Terraform and submits through a session that it opens and closes."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import deploy as deploy_command
from pipeline.cli.main import main as event_trigger
from pipeline.launch import run
from pipeline.launch.options import parse
from runners.flink.local.processes import accepts_connections
from tests.integration.jobs import ROOT

FLAGS = ["--runner=FlinkRunner", "--flink_master=localhost:8081", "--bootstrap_servers=kafka:9092", "--parallelism=4"]

# Answers as a JobManager does, on the port it is told; the session of a real cluster is tests/infra/long's.
SESSION = """
import http.server, os
class Flink(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"flink-version": "1.19.3", "jobs": []}')
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["FLINK_PORT"])), Flink).serve_forever()
"""


@pytest.fixture
def terraform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes a terraform that answers with a cluster; what ``deploy`` then submits is in the list, the port last."""
    submitted: list[str] = []

    def main(argv: list[str]) -> int:
        submitted.extend(argv)
        assert accepts_connections(int(argv[-1].rpartition(":")[2]))
        return 0

    def make(tunnel: str = f"{sys.executable} {tmp_path / 'session.py'}", script: str | None = None) -> list[str]:
        answer = json.dumps({"tunnel_command": tunnel, "submit_flags": FLAGS})
        (tmp_path / "answer.json").write_text(answer)
        (tmp_path / "session.py").write_text(SESSION)
        program = tmp_path / "terraform"
        program.write_text(
            "#!/bin/sh\n"
            '[ "$*" = "-chdir=there output -no-color -json cluster" ] || { echo "called with $*" >&2; exit 1; }\n'
            + (script or f"cat {tmp_path / 'answer.json'}\n")
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "there").mkdir(exist_ok=True)
        return submitted

    monkeypatch.setattr(run, "launch", main)
    return make


def test_the_job_is_submitted_through_the_session_with_the_clusters_flags_and_ours(
    terraform: Callable[..., list[str]],
) -> None:
    submitted = terraform()
    assert event_trigger(["deploy", "--terraform=there", "--rules=rules/", "--parallelism=2"]) == 0
    assert submitted[: len(FLAGS)] == FLAGS
    assert set(submitted[len(FLAGS) : -1]) == {"--rules=rules/", "--parallelism=2"}
    settings = parse(submitted)
    assert settings.parallelism == 2
    assert settings.flink_master == submitted[-1].partition("=")[2] != "localhost:8081"
    assert not accepts_connections(int(submitted[-1].rpartition(":")[2]))


def test_a_job_is_resumed_through_the_session(
    terraform: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = terraform()
    monkeypatch.setattr(deploy_command, "launch_from_state", run.launch)
    monkeypatch.setattr(run, "launch", lambda argv: pytest.fail(f"launched {argv}"))
    assert event_trigger(["deploy", "--terraform=there", "--resume", "--rules=rules/"]) == 0
    assert submitted[:-1] == [*FLAGS, "--rules=rules/"]


def test_jobs_are_steered_through_a_session(
    terraform: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    terraform()
    assert event_trigger(["savepoint", "--terraform=there"]) == 1
    assert "no job runs at http://localhost:" in capfd.readouterr().err
    assert event_trigger(["savepoint", "--terraform=there", "--flink_master=h:1"]) == 2
    assert "--flink_master and --terraform are both given" in capfd.readouterr().err


def test_a_session_that_ends_says_why(terraform: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]) -> None:
    submitted = terraform("sh -c 'echo SessionManagerPlugin is not found >&2; exit 255'")
    assert event_trigger(["deploy", "--terraform=there", "--rules=rules/"]) == 1
    assert "SessionManagerPlugin is not found" in capfd.readouterr().err
    assert submitted == []


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("echo No outputs found >&2; exit 1", [], "--terraform 'there': terraform output: No outputs found"),
        ("echo '{}'", [], "the output 'cluster' has no tunnel_command and submit_flags"),
        (None, ["--flink_master=other:8081"], "--flink_master and --runner are the cluster's"),
        (None, ["--rulez=rules/"], "unknown option '--rulez': did you mean --rules?"),
    ],
)
def test_what_cannot_be_used_is_refused_before_a_session_is_opened(
    terraform: Callable[..., list[str]],
    capfd: pytest.CaptureFixture[str],
    script: str | None,
    flags: list[str],
    message: str,
) -> None:
    submitted = terraform("echo must not be called", script)
    assert event_trigger(["deploy", "--terraform=nowhere"]) == 2
    assert capfd.readouterr().err == "error: --terraform 'nowhere': there is no such folder\n"
    assert event_trigger(["deploy", "--terraform=there", *flags]) == 2
    assert message in capfd.readouterr().err
    assert submitted == []


def test_the_documented_command_is_accepted() -> None:
    block = next(
        block
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "infrastructure.md").read_text(), re.DOTALL)
        if "event-trigger deploy" in block
    )
    first, *flags = shlex.split(block.replace("\\\n", " ").split("event-trigger deploy", 1)[1])
    assert (ROOT / first.removeprefix("--terraform=") / "main.tf").is_file()
    assert parse([*FLAGS, *flags]).parallelism == 4
