from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
import requests
import yaml

from runners.flink.errors import LocalStackError
from runners.flink.local.broker import LocalKafka
from tests.flink_cluster import FlinkCluster
from tests.waiting import eventually

LeftOver = Callable[[], list[str]]


def test_a_cluster_without_slots_is_refused() -> None:
    with pytest.raises(LocalStackError, match="1 TaskManagers with 0 slots"):
        FlinkCluster(slots=0)


def test_several_job_managers_need_a_zookeeper() -> None:
    with pytest.raises(LocalStackError, match="2 JobManagers; allowed: 1, more with a ZooKeeper"):
        FlinkCluster(job_managers=2)


def test_nothing_is_known_before_the_start() -> None:
    with pytest.raises(LocalStackError, match="not started"):
        _ = FlinkCluster(jars=[]).log_dir
    with pytest.raises(LocalStackError, match=r"rest\.port is not known before start"):
        _ = FlinkCluster(jars=[]).flink_master


@pytest.fixture(scope="module")
def own_flink() -> Iterator[FlinkCluster]:
    """A cluster that tests may kill; no connectors, since no jobs run on it."""
    with FlinkCluster(
        task_managers=1, slots=3, jars=[], config={"taskmanager.memory.process.size": "1300m"}
    ) as cluster:
        yield cluster


@pytest.mark.stack
def test_the_cluster_has_the_requested_task_managers_and_slots(own_flink: FlinkCluster) -> None:
    overview = own_flink.rest.overview()
    assert (overview["taskmanagers"], overview["slots-total"], overview["flink-version"]) == (1, 3, "1.19.3")
    assert own_flink.rest_url == f"http://{own_flink.flink_master}"
    settings = yaml.safe_load((own_flink.conf_dir / "config.yaml").read_text())
    assert settings["state.backend.type"] == "rocksdb"


@pytest.mark.stack
def test_a_task_manager_really_has_the_memory_of_its_configuration(own_flink: FlinkCluster) -> None:
    (task_manager,) = own_flink.rest.task_managers()
    assert task_manager["memoryConfiguration"]["totalProcessMemory"] == 1300 << 20
    heap = task_manager["memoryConfiguration"]["frameworkHeap"] + task_manager["memoryConfiguration"]["taskHeap"]
    (pid,) = own_flink.task_manager_pids
    with open(f"/proc/{pid}/cmdline") as cmdline:
        options = cmdline.read().split("\0")
    assert f"-Xmx{heap}" in options
    assert f"-XX:MaxMetaspaceSize={256 << 20}" in options
    assert "-XX:TieredStopAtLevel=1" in options, "a cluster that lives for minutes is warm in seconds"


@pytest.mark.stack
def test_every_process_serves_prometheus_metrics(own_flink: FlinkCluster) -> None:
    job_manager, task_manager = own_flink.metrics_urls[:2]
    assert "flink_jobmanager_Status_JVM" in requests.get(job_manager, timeout=5).text
    assert "flink_taskmanager_Status_JVM" in requests.get(task_manager, timeout=5).text


@pytest.mark.stack
def test_a_killed_task_manager_is_replaced(own_flink: FlinkCluster) -> None:
    (before,) = own_flink.task_manager_pids
    assert own_flink.kill_task_manager(0) == before
    assert own_flink.task_manager_pids == []
    left = [own_flink.work_dir / name / "taskmanager-0" for name in ("rocksdb", "tmp")]
    (left[0] / "state").write_bytes(b"of the killed one")
    assert list(left[1].glob("tm_*"))
    with pytest.raises(LocalStackError, match="TaskManager 0: not running; 0 are"):
        own_flink.kill_task_manager(0)
    after = own_flink.start_task_manager()
    assert own_flink.task_manager_pids == [after] != [before]
    assert [folder for folder in left if folder.exists()] == []


@pytest.mark.stack
def test_a_restart_removes_the_files_of_a_killed_job_manager(own_flink: FlinkCluster) -> None:
    temporary = own_flink.work_dir / "tmp"
    (before,) = temporary.glob("jobmanager/jm_*")
    own_flink.kill_job_manager()
    assert before.exists()
    own_flink.restart_job_manager()
    (after,) = temporary.glob("jobmanager/jm_*")
    assert after != before
    # Nothing lies beside the folders of those who live.
    assert {folder.name for folder in temporary.iterdir()} <= {"jobmanager", "taskmanager-0", "taskmanager-1"}


@pytest.mark.stack
def test_a_second_task_manager_adds_slots(own_flink: FlinkCluster) -> None:
    known = len(own_flink.task_manager_pids)
    pid = own_flink.start_task_manager()
    assert own_flink.task_manager_pids[-1] == pid
    assert own_flink.rest.overview()["slots-total"] >= 3 * (known + 1)
    own_flink.kill_task_manager(known)


@pytest.mark.stack
def test_nothing_is_left_after_stop(left_over: LeftOver) -> None:
    with FlinkCluster(task_managers=2, slots=1, jars=[]) as cluster:
        work_dir = cluster.work_dir
        cluster.kill_task_manager(1)
    assert left_over() == []
    assert not work_dir.exists()


@pytest.mark.stack
def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing(left_over: LeftOver) -> None:
    settings = {"heartbeat.interval": "soon"}
    with pytest.raises(LocalStackError, match=r"(?s)JobManager .*Could not parse value 'soon'"):
        FlinkCluster(jars=[], config=settings).__enter__()
    assert left_over() == []


@pytest.mark.stack
def test_inconsistent_memory_settings_are_refused() -> None:
    settings = {"taskmanager.memory.process.size": "300m"}
    with pytest.raises(LocalStackError, match=r"(?s)Flink's memory settings .*300m.*refused"):
        FlinkCluster(jars=[], config=settings).__enter__()


@pytest.mark.stack
def test_the_shared_stack_is_there_for_every_test(kafka: LocalKafka, flink: FlinkCluster) -> None:
    kafka.create_topic("shared-stack", 4)
    overview = flink.rest.overview()
    assert (overview["taskmanagers"], overview["slots-total"]) == (1, 2)
    assert any("event-trigger-connectors" in jar for jar in flink.class_path.split(":"))


@pytest.mark.stack
def test_a_task_manager_that_has_ended_is_replaced_once(own_flink: FlinkCluster) -> None:
    before = own_flink.task_manager_pids[0]
    count = len(own_flink.task_manager_pids)
    assert own_flink.replace_dead_task_managers() == 0
    os.kill(before, signal.SIGKILL)
    eventually(lambda: before not in own_flink.task_manager_pids, "the TaskManager has ended")
    assert own_flink.replace_dead_task_managers() == 1
    assert own_flink.replace_dead_task_managers() == 0
    assert len(own_flink.task_manager_pids) == count
    assert before not in own_flink.task_manager_pids
    known = {task_manager["id"] for task_manager in own_flink.rest.task_managers()}
    eventually(
        lambda: {task_manager["id"] for task_manager in own_flink.rest.task_managers()} - known,
        "a new one registers",
        90,
    )
