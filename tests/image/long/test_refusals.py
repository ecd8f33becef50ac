"""What containers say that cannot start: one error, which names the thing, the value and what is allowed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

import pytest

from tests.image.containers import containers, podman

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ENTRYPOINT = "/docker-entrypoint.sh"
KAFKA = "--bootstrap_servers=nowhere.invalid:9092"
FLINK = "--flink_master=nowhere.invalid:8081"
# Arguments, variables, exit code, what the error says.
WRONG: Sequence[tuple[Sequence[str], Mapping[str, str], int, str]] = (
    (["taskmanger"], {}, 127, "'taskmanger' is no role and no program; allowed: jobmanager, taskmanager, launch, page"),
    (["--parallelsm=4"], {}, 2, "unknown option '--parallelsm"),
    (["launch"], {}, 2, "--bootstrap_servers is missing"),
    (["launch", KAFKA, FLINK, "--rules=/nothing"], {}, 2, "/nothing: no such file"),
    (["launch"], {"EVENT_TRIGGER_PARALLELISM": "x"}, 2, "EVENT_TRIGGER_PARALLELISM is 'x', allowed: a whole number"),
    (["page", KAFKA, FLINK, "--token=env:UI_TOKEN"], {}, 2, "--token is env:UI_TOKEN: no such environment variable"),
    (["jobmanager"], {"FLINK_PROPERTIES": "rest.port=1"}, 2, "'rest.port=1' is no setting; allowed: 'key: value'"),
    (["jobmanager", "-D", "jobmanager.memory.process.size=ten"], {}, 1, "Could not parse value 'ten' for key"),
    (["taskmanager"], {"FLINK_CONF_DIR": "/nothing"}, 1, "'/nothing' (/nothing) does not describe an existing"),
)


def inside(name: str, *command: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a container that sleeps."""
    given = [word for key, value in (variables or {}).items() for word in ("--env", f"{key}={value}")]
    return podman("exec", *given, name, *command)


def test_what_is_wrong_is_one_error_and_a_container_without_a_network_still_knows_its_commands() -> None:
    with containers() as run:
        name = run.start("sleep", "infinity", options=["--network=none"])
        for arguments, variables, code, message in WRONG:
            done = inside(name, ENTRYPOINT, *arguments, variables=variables)
            output = done.stdout + done.stderr
            assert (done.returncode, message in output) == (code, True), f"{arguments}: {done.returncode}: {output}"
            assert len(output.splitlines()) == 1, f"{arguments}: {output}"
        assert inside(name, ENTRYPOINT, "event-trigger", "rules", "new", "/tmp/rules").returncode == 0  # noqa: S108
        done = inside(name, ENTRYPOINT, "event-trigger", "rules", "check", "/tmp/rules")  # noqa: S108
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "roles", "problem"),
    [
        (["--read-only-tmpfs=false"], ("launch", "page", "jobmanager"), "/tmp (Read-only file system)"),  # noqa: S108
        (
            ["--user=12345:0", "--tmpfs=/data:size=64k"],
            ("jobmanager", "taskmanager"),
            "/data (No space left on device)",
        ),
        (["--user=12345:12345"], ("taskmanager",), "/data (Permission denied)"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named(options: Sequence[str], roles: Sequence[str], problem: str) -> None:
    with containers() as run:
        name = run.start("sleep", "infinity", options=["--network=none", *options])
        for role in roles:
            done = inside(name, ENTRYPOINT, role)
            assert (done.returncode, done.stdout) == (1, "")
            assert f" cannot write to {problem}; allowed: a volume or a tmpfs" in done.stderr


def test_a_user_that_the_platform_chooses_has_a_name_and_can_write() -> None:
    """As on OpenShift: any number, group 0, and no entry in /etc/passwd, for which Hadoop's S3 client fails."""
    names = "id -un; java -XshowSettings:properties -version 2>&1 | sed -n 's/ *user.name = //p'"
    with containers() as run:
        options = ["--network=none", "--user=12345:0", "--passwd=false", "--volume=/checkpoints"]
        output = run.start("sh", "-c", f"{names}; touch /data/x /checkpoints/x", options=options, wait=True)
    assert output.split() == ["flink", "flink"]
