"""The files of nodes, rendered by Terraform: a valid cloud-config, scripts and units that their checkers accept."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from runners.flink import configuration
from tests.infra import terraform
from tests.infra.terraform import ROOT, Report

REGISTERED = (
    "INFO org.apache.flink.runtime.taskexecutor.TaskExecutor [] - Successful registration at resource manager x"
)
ROLES = ("zookeeper", "jobmanager", "taskmanager")


def checked(*command: str | Path) -> subprocess.CompletedProcess[str]:
    program = str(command[0])
    assert shutil.which(program), f"{program} is not on the PATH: run make infra-tools"
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def user_data(audited: Report) -> dict[str, str]:
    return dict(audited.output("large", "cluster")["user_data"])


@pytest.fixture
def scripts(user_data: dict[str, str], tmp_path: Path) -> list[Path]:
    """Every script that a node runs: those in its user data and those of the release."""
    scripts = [*sorted((ROOT / "infra" / "release").glob("*.sh"))]
    for role in ROLES:
        for path, content in terraform.files(user_data[role]).items():
            if content.startswith("#!"):
                script = tmp_path / f"{role}-{Path(path).name}"
                script.write_text(content)
                scripts.append(script)
    return scripts


@pytest.mark.parametrize("role", ROLES)
def test_cloud_init_accepts_the_user_data(user_data: dict[str, str], tmp_path: Path, role: str) -> None:
    (tmp_path / "good").write_text(user_data[role])
    (tmp_path / "bad").write_text(user_data[role].replace('"permissions": "0644"', '"permissions": 420'))
    assert checked("cloud-init", "schema", "--config-file", tmp_path / "good").returncode == 0
    # A key that it does not know it ignores.
    assert set(yaml.safe_load(user_data[role])) == {"package_update", "packages", "write_files", "runcmd"}
    assert checked("cloud-init", "schema", "--config-file", tmp_path / "bad").returncode != 0


def test_shellcheck_accepts_the_scripts(scripts: Sequence[Path]) -> None:
    assert {script.name for script in scripts} == {
        "event-trigger-worker.sh",
        "event-trigger.sh",
        "flink-node.sh",
        "zookeeper-event-trigger-boot",
        "jobmanager-event-trigger-boot",
        "taskmanager-event-trigger-boot",
        "taskmanager-event-trigger-drain",
        "jobmanager-event-trigger-registered",
        "jobmanager-event-trigger-savepoint",
        "taskmanager-event-trigger-registered",
    }
    result = checked("shellcheck", *scripts)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("role", ROLES)
def test_systemd_accepts_the_units(user_data: dict[str, str], tmp_path: Path, role: str) -> None:
    # A root of its own, with the programs that the units start and the targets that they name.
    root = tmp_path / "root"
    for path, content in terraform.files(user_data[role]).items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(0o755 if content.startswith("#!") else 0o644)
    for program in ("usr/bin/java", "opt/flink/bin/flink-node", "opt/event-trigger/bin/event-trigger-worker"):
        target = root / program
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("#!/bin/sh\n")
        target.chmod(0o755)
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    folder = root / "etc/systemd/system"
    units = sorted(path for kind in ("socket", "service", "timer") for path in folder.glob(f"*.{kind}"))
    assert len(units) >= 2

    def verify() -> subprocess.CompletedProcess[str]:
        return checked("systemd-analyze", "verify", f"--root={root}", "--man=no", *(unit.name for unit in units))

    complaints = [line for line in verify().stderr.splitlines() if any(unit.name in line for unit in units)]
    assert complaints == []
    units[-1].write_text(units[-1].read_text().replace("ExecStart=/", "ExecStrat=/"))
    assert [line for line in verify().stderr.splitlines() if units[-1].name in line] != []


def test_a_services_settings_are_the_local_clusters_unless_the_cluster_says_otherwise(
    user_data: dict[str, str], tmp_path: Path
) -> None:
    # The merge is a line of the boot script: node, cluster, release; the first of a key counts.
    files = terraform.files(user_data["taskmanager"])
    (tmp_path / "cluster.yaml").write_text(files["/etc/flink/cluster.yaml"])
    configuration.write(tmp_path, configuration.BASE)
    (awk,) = [line for line in files["/usr/local/sbin/event-trigger-boot"].splitlines() if "awk -F" in line]
    merge = awk.strip().removeprefix("} | ").partition(" | ")[0]
    result = subprocess.run(
        ["bash", "-c", f"cat cluster.yaml config.yaml | {merge}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    merged = yaml.safe_load(result.stdout)
    cluster = yaml.safe_load(files["/etc/flink/cluster.yaml"])
    assert merged == {**configuration.BASE, **cluster}
    assert len(result.stdout.splitlines()) == len(merged)
    # Same in substance: nothing that the local cluster relies on is changed here.
    assert {key for key in cluster if key in configuration.BASE and cluster[key] != configuration.BASE[key]} == set()


@pytest.mark.parametrize("role", ["jobmanager", "taskmanager"])
def test_a_launch_is_completed_when_the_node_has_registered(
    user_data: dict[str, str], tmp_path: Path, role: str
) -> None:
    """The node registers during the first pause, and AWS is reached with the second try."""
    programs = {
        "sleep": f"touch {tmp_path}/slept; echo '{REGISTERED}' >{tmp_path}/taskmanager.log",
        "curl": f"[ -e {tmp_path}/slept ]",
        "aws": (
            f'echo "$@" >>{tmp_path}/calls\n'
            f"if [ $(wc -l <{tmp_path}/calls) = 1 ]; then echo 'Could not connect' >&2; exit 255; fi"
        ),
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "instance-id").write_text("i-1\n")
    text = terraform.files(user_data[role])["/usr/local/sbin/event-trigger-registered"]
    for folder in ("/etc/event-trigger", "/var/log/flink"):
        text = text.replace(folder, str(tmp_path))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ROLE": role, "GROUP_NAME": f"test-{role}", "AWS_REGION": "x"}
    result = subprocess.run(
        ["bash", "-c", text], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"the {role} has registered", "launch completed"]
    assert "the launch cannot be completed yet: Could not connect" in result.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == 2 * [
        "autoscaling complete-lifecycle-action --lifecycle-action-result CONTINUE --instance-id i-1"
        f" --auto-scaling-group-name test-{role} --lifecycle-hook-name registered"
    ]
    # After a reboot there is no launch to complete.
    (tmp_path / "aws").write_text("#!/bin/sh\necho 'ValidationError: No active Lifecycle Action found' >&2\nexit 254\n")
    again = subprocess.run(
        ["bash", "-c", text], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "no launch to complete")
