"""The script that a JobManager's timer runs, as Terraform renders it, with stand-ins for what it calls."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.infra import terraform
from tests.infra.terraform import Report

LEADS = 'flink_jobmanager_numRegisteredTaskManagers{host="h"} 2.0\n'
STANDS_BY = 'flink_jobmanager_Status_JVM_CPU_Load{host="h"} 0.1\n'
TAKE, PRUNE, COUNT = "event-trigger savepoint ", "event-trigger savepoints prune", "aws cloudwatch put-metric-data"

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture(scope="module")
def files(audited: Report) -> dict[str, str]:
    return terraform.files(audited.output("large", "cluster")["user_data"]["jobmanager"])


@pytest.fixture
def run(files: dict[str, str], tmp_path: Path) -> Run:
    def run(metrics: str | None, jobs: Sequence[tuple[str, str]], fails: str = "") -> tuple[int, list[str]]:
        """``fails`` is what begins the call that ends with 1. The exit code, and the calls in their order."""
        calls = tmp_path / "calls"
        calls.write_text("")
        (tmp_path / "overview").write_text(json.dumps({"jobs": [{"jid": jid, "state": state} for jid, state in jobs]}))
        (tmp_path / "metrics").write_text(metrics or "")
        log = f'echo "${{0##*/}} $*" >>{calls}\n'
        told = f'case "${{0##*/}} $*" in "{fails or "nothing"}"*) exit 1 ;; esac\n'
        stubs = {
            "curl": f'case "$*" in *overview*) cat {tmp_path}/overview ;; *) cat {tmp_path}/metrics ;; esac\n'
            + ("exit 7\n" if metrics is None else ""),
            "aws": log + told,
            "event-trigger": log + told + "echo s3://bucket/savepoint-1\n",
        }
        for name, text in stubs.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
            (tmp_path / name).chmod(0o755)
        script = files["/usr/local/sbin/event-trigger-savepoint"].replace("/opt/event-trigger/bin", str(tmp_path))
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "AWS_REGION": "eu-central-1"}
        path = subprocess.run(["bash", "-c", "command -v python3.11"], capture_output=True, text=True, check=False)
        environment["PATH"] += f":{Path(path.stdout.strip()).parent}"
        result = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
        return result.returncode, calls.read_text().splitlines()

    return run


def test_the_leader_takes_one_of_each_running_job_and_then_prunes(run: Run) -> None:
    code, calls = run(LEADS, [("a", "RUNNING"), ("b", "FINISHED"), ("c", "RUNNING")])
    assert code == 0
    assert [line for line in calls if line.startswith(TAKE)] == [
        f"{TAKE}--flink_master=127.0.0.1:8081 --job={job} --timeout_seconds=3600" for job in "ac"
    ]
    assert sum(line.startswith(COUNT) for line in calls) == 2
    assert calls[-1] == f"{PRUNE} --flink_master=127.0.0.1:8081 --older_than=7d --yes"


@pytest.mark.parametrize("metrics", [STANDS_BY, None], ids=["a standby", "a JobManager that does not answer"])
def test_others_do_nothing(run: Run, metrics: str | None) -> None:
    assert run(metrics, [("a", "RUNNING")]) == (0, [])


def test_without_a_job_none_is_taken_and_old_ones_go(run: Run) -> None:
    code, calls = run(LEADS, [])
    assert (code, len(calls)) == (0, 1)
    assert calls[0].startswith(PRUNE)


def test_one_that_fails_is_not_counted_and_fails_the_unit(run: Run) -> None:
    code, calls = run(LEADS, [("a", "RUNNING"), ("b", "RUNNING")], fails=f"{TAKE}--flink_master=127.0.0.1:8081 --job=a")
    assert code == 1
    assert sum(line.startswith(TAKE) for line in calls) == 2
    assert sum(line.startswith(COUNT) for line in calls) == 1
    # The others stay as long as they should, whatever became of this one.
    assert calls[-1].startswith(PRUNE)


@pytest.mark.parametrize("fails", [COUNT, PRUNE])
def test_what_fails_afterwards_fails_the_unit_too(run: Run, fails: str) -> None:
    code, calls = run(LEADS, [("a", "RUNNING")], fails=fails)
    assert (code, len(calls)) == (1, 3)


def test_the_boot_starts_the_timer_and_the_alarm_waits_for_what_the_script_counts(
    audited: Report, files: dict[str, str]
) -> None:
    assert "event-trigger-savepoint.timer" in files["/etc/event-trigger/node.env"]
    assert "/opt/event-trigger" in files["/etc/event-trigger/artifacts"]
    assert "OnUnitActiveSec=24h" in files["/etc/systemd/system/event-trigger-savepoint.timer"]
    (alarm,) = (
        alarm
        for alarm in audited.resources("large", "aws_cloudwatch_metric_alarm")
        if alarm["alarm_name"] == "test-savepoint-missing"
    )
    script = files["/usr/local/sbin/event-trigger-savepoint"]
    assert f"--namespace '{alarm['namespace']}' --metric-name {alarm['metric_name']}" in script
    assert (alarm["period"], alarm["evaluation_periods"]) == (86400, 2)
    assert alarm["treat_missing_data"] == "breaching"
