"""The launcher follows its job, and supervises a cluster of its own."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pipeline.launch import flink
from runners.flink.local.cluster import LocalFlink
from runners.flink.rest import FlinkRest


class Rest:
    """Jobs that end after a few looks."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)

    def job(self, job_id: str) -> dict[str, Any]:
        return {"state": self.states.pop(0)}


class Cluster:
    """TaskManagers end between looks, as many as ``dead`` says."""

    def __init__(self, *dead: int) -> None:
        self.dead = list(dead)

    def replace_dead_task_managers(self) -> int:
        return self.dead.pop(0)


def follow(monkeypatch: pytest.MonkeyPatch, cluster: Cluster | None, *states: str) -> int:
    monkeypatch.setattr(flink, "_FOLLOW_EVERY_S", 0)
    return flink.follow(cast(FlinkRest, Rest(*states)), "j1", cast("LocalFlink | None", cluster))


def test_a_task_manager_of_its_own_that_has_ended_is_started_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster(0, 1, 0, 0)
    assert follow(monkeypatch, cluster, "RUNNING", "RESTARTING", "RUNNING", "CANCELED") == 0
    assert cluster.dead == []
    assert capsys.readouterr().err.count("a TaskManager has ended") == 1


def test_a_cluster_of_somebody_else_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow(monkeypatch, None, "RUNNING", "CANCELED") == 0
    assert "TaskManager" not in capsys.readouterr().err
