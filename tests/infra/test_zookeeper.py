"""Rights in ZooKeeper: a real server with the settings of nodes, and Flink's own client with our class in its path."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.flink import artifacts
from tests.faults.zookeeper import LocalZooKeeper

pytestmark = pytest.mark.slow

PASSWORDS = {"jobmanager": "leads", "taskmanager": "looks"}
MODULE = "org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.server.auth.DigestLoginModule"
SOURCE = Path(__file__).parent / "InZooKeeper.java"
LEADER = "/leader/connection_info"


@pytest.fixture(scope="module")
def zookeeper() -> Iterator[LocalZooKeeper]:
    with LocalZooKeeper(passwords=PASSWORDS) as server:
        yield server


def done(server: LocalZooKeeper, user: str, password: str, tmp_path: Path, *actions: str) -> list[str]:
    """What Flink's client gets for its actions as a user, started with the options of ``flink-node``."""
    (tmp_path / "jaas.conf").write_text(f'Client {{ {MODULE} required username="{user}" password="{password}"; }};')
    own = [jar for jar in artifacts.connectors() if jar.name == "event-trigger-connectors.jar"]
    jars = ":".join(map(str, [*own, *(artifacts.flink_home() / "lib").glob("*.jar")]))
    options = [
        f"-Djava.security.auth.login.config={tmp_path / 'jaas.conf'}",
        "-Deventtrigger.zookeeper.owner=jobmanager",
    ]
    command = [artifacts.java(), *options, "-cp", jars, str(SOURCE), server.quorum, *actions]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    return [line for line in result.stdout.splitlines() if ANSWERS.fullmatch(line)] or [result.stdout + result.stderr]


ANSWERS = re.compile(r"written|jm1|mine|\w+Exception")


def test_a_taskmanager_reads_who_leads_and_names_nobody_even_if_it_comes_first(
    zookeeper: LocalZooKeeper, tmp_path: Path
) -> None:
    write = ("write", LEADER)
    # The first of a cluster makes its nodes, which then are a JobManager's.
    first = done(zookeeper, "taskmanager", "looks", tmp_path, "read", LEADER, "", *write, "mine")
    assert first == ["NoNodeException", "NoAuthException"]
    assert done(zookeeper, "jobmanager", "leads", tmp_path, *write, "jm1", "read", LEADER, "") == ["written", "jm1"]
    again = done(
        zookeeper, "taskmanager", "looks", tmp_path, "read", LEADER, "", *write, "mine", "write", "/leader/x", "mine"
    )
    assert again == ["jm1", "NoAuthException", "NoAuthException"]


def test_who_has_no_password_reads_nothing(zookeeper: LocalZooKeeper, tmp_path: Path) -> None:
    (answer,) = done(zookeeper, "taskmanager", "guessed", tmp_path, "read", LEADER, "")
    assert answer not in {"jm1", "mine", "NoNodeException", "written"}
