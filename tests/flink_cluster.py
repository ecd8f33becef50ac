"""A Flink cluster whose processes tests kill and start again, and what tests await of the jobs that run on it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from runners.flink.errors import LocalStackError
from runners.flink.local.cluster import READY_S, LocalFlink, running
from runners.flink.local.processes import LOCALHOST, Process, accepts_connections, free_ports
from runners.flink.rest import TERMINAL_STATES, FlinkRest

_POLL_S = 0.1
# Only the leading JobManager has a ResourceManager that counts TaskManagers.
_LEADER_METRIC = re.compile(r"^flink_jobmanager_numRegisteredTaskManagers\b", re.MULTILINE)


class FlinkCluster(LocalFlink):
    """A session cluster whose processes can be killed and started again.

    ``plugins`` are plugin folders beside the default ones, e.g. one with the S3 file system.

    If ``config`` makes the cluster highly available, there may be several ``job_managers``, of which one leads, and
    jobs outlive them. Each keeps its ports when it is killed and started again.
    """

    def __init__(
        self,
        *,
        task_managers: int = 1,
        slots: int = 2,
        job_managers: int = 1,
        config: Mapping[str, str] | None = None,
        jars: Sequence[Path] | None = None,
        plugins: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        long_lived: bool = False,
    ) -> None:
        if job_managers < 1 or (job_managers > 1 and "high-availability.type" not in (config or {})):
            raise LocalStackError(f"Flink: {job_managers} JobManagers; allowed: 1, more with a ZooKeeper")
        super().__init__(
            task_managers=task_managers,
            slots=slots,
            config=config,
            jars=jars,
            environment=environment,
            long_lived=long_lived,
        )
        self._wanted_job_managers = job_managers
        self._plugins = plugins
        self._ports: dict[str, tuple[int, int]] = {}  # of RPC and REST, by the JobManager's name
        self._killed: list[Process] = []  # TaskManagers, until the end: their workers may still be in the process group

    @property
    def conf_dir(self) -> Path:
        """The folder with config.yaml."""
        return self.work_dir / "conf"

    @property
    def log_dir(self) -> Path:
        """Logs of the JobManager, the TaskManagers and (``worker-*``) the Python workers."""
        return self.work_dir / "log"

    @property
    def class_path(self) -> str:
        """The class path of the cluster: Flink's lib/ and our jars."""
        return self._class_path

    @property
    def flink_master(self) -> str:
        """``127.0.0.1:port`` of a JobManager that runs, leader or not."""
        for process in running(self._job_managers):
            return f"{LOCALHOST}:{self._ports[process.name][1]}"
        return super().flink_master

    @property
    def job_manager_pid(self) -> int:
        """The leading JobManager's process id."""
        return self._leader().pid

    @property
    def job_manager_pids(self) -> list[int]:
        """Process ids of the running JobManagers."""
        return [process.pid for process in running(self._job_managers)]

    @property
    def task_manager_pids(self) -> list[int]:
        """Process ids of the running TaskManagers, in the order in which they were started."""
        return [process.pid for process in running(self._task_managers)]

    def stop(self) -> None:
        """Stop all processes, with the workers of TaskManagers that were killed, and remove the temporary folder."""
        self._task_managers += self._killed
        self._killed = []
        super().stop()

    def start_task_manager(self) -> int:
        """Remove what killed TaskManagers left on the disk, start one more, return its id when it has registered."""
        for killed in self._killed:
            self._remove_local_dirs(killed.name)
        process = self._start_task_manager()
        self._wait_for_registration()
        return process.pid

    def add_task_manager(self) -> None:
        """Start one more TaskManager and return at once, as one that hangs may be registered no longer."""
        self._start_task_manager()

    def remove_task_manager(self, pid: int) -> None:
        """End a TaskManager that is one too many, if it still runs, and remove what it has left on the disk."""
        (process,) = (process for process in self._task_managers if process.pid == pid)
        if process.running:
            process.kill()
        self._task_managers.remove(process)
        self._killed.append(process)
        self._remove_local_dirs(process.name)

    def repair(self) -> None:
        """Start a TaskManager for each that has ended itself and return when it has registered.

        A TaskManager ends itself when a task does not (``task.cancellation.timeout``), which on a busy machine may be
        one that only takes long. Elsewhere a supervisor starts it again.
        """
        if self.replace_dead_task_managers():
            self._wait_for_registration()

    def kill_task_manager(self, index: int = 0) -> int:
        """``kill -9`` a TaskManager (an index of ``task_manager_pids``) and nothing else; returns its process id."""
        alive = running(self._task_managers)
        if not 0 <= index < len(alive):
            raise LocalStackError(f"TaskManager {index}: not running; {len(alive)} are")
        process = alive[index]
        process.kill()
        self._task_managers.remove(process)
        self._killed.append(process)
        return process.pid

    def kill_job_manager(self) -> int:
        """``kill -9`` the leading JobManager; returns its process id. Without ZooKeeper its jobs are lost."""
        leader = self._leader()
        leader.kill()
        return leader.pid

    def restart_job_manager(self) -> None:
        """Start every killed JobManager again on its ports, return when the TaskManagers have found a leader."""
        self._start_job_managers()
        self._wait_for_registration()

    def _make_folders(self, plugins: Sequence[Path]) -> None:
        super()._make_folders([*plugins, *self._plugins])

    def _start_job_managers(self) -> None:
        """Start each JobManager that does not run, and return when all of them serve REST."""
        if not self._job_managers:
            self._ports = self._choose_ports()
        known = {process.name: process for process in self._job_managers}
        for name, (rpc_port, rest_port) in self._ports.items():
            killed = known.get(name)
            if killed is not None:
                if killed.running:
                    continue
                killed.stop()
                self._job_managers.remove(killed)
                self._remove_local_dirs(name)
            arguments = ["-D", f"rest.port={rest_port}"]
            for key in ("jobmanager.rpc.port", "high-availability.jobmanager.port"):
                arguments += ["-D", f"{key}={rpc_port}"]
            self._job_managers.append(self._started().start_job_manager(name, *arguments))
        self._job_managers.sort(key=lambda process: process.name)
        for process in self._job_managers:
            rest_port = self._ports[process.name][1]
            process.wait_for(
                lambda port=rest_port: accepts_connections(port),  # type: ignore[misc]
                what="serving REST",
                deadline_s=READY_S,
            )

    def _choose_ports(self) -> dict[str, tuple[int, int]]:
        first = (int(self._settings["jobmanager.rpc.port"]), int(self._settings["rest.port"]))
        if self._wanted_job_managers == 1:
            return {"JobManager": first}
        # Nothing listens on the first JobManager's ports yet, so that they may be found free again.
        ports = [port for port in free_ports(2 * self._wanted_job_managers) if port not in first]
        pairs = [first, *zip(ports[::2], ports[1::2], strict=False)]
        return {f"JobManager-{number}": pairs[number] for number in range(self._wanted_job_managers)}

    def _leader(self) -> Process:
        launcher, alive = self._started(), running(self._job_managers)
        if self._wanted_job_managers == 1 and alive:
            return alive[0]
        for process in alive:
            with contextlib.suppress(requests.RequestException):
                if _LEADER_METRIC.search(requests.get(launcher.metrics_urls[process.name], timeout=5).text):
                    return process
        raise LocalStackError(f"Flink: no JobManager leads; {len(alive)} are running")


def running_since(rest: FlinkRest, job_id: str) -> int:
    """When the job last began to run, in epoch milliseconds: later after each restart, whatever scheduler made it."""
    return int(rest.job(job_id)["timestamps"]["RUNNING"])


def restarts(rest: FlinkRest, job_id: str) -> int:
    """How often the job has been restarted, by a failure or for other slots."""
    return int(rest.job_metrics(job_id, ["numRestarts"])["numRestarts"])


def wait_for_recovery(rest: FlinkRest, job_id: str, since: int, deadline_s: float) -> None:
    """Wait until the job has restarted later than ``since`` and every task runs again.

    After a ``kill -9`` Flink calls a job RUNNING for seconds, until it notices that the TaskManager is missing.
    Read ``running_since`` before the kill and pass it as ``since`` after it.

    Raises:
        LocalStackError: after ``deadline_s`` seconds, or at once if the job ended.
    """
    give_up = time.monotonic() + deadline_s
    while True:
        job = rest.job(job_id)  # one request: REST responds from a copy that it renews every few seconds
        state, tasks = str(job["state"]), [vertex["status"] for vertex in job["vertices"]]
        restarted = int(job["timestamps"]["RUNNING"]) > since
        if restarted and state == "RUNNING" and all(task == "RUNNING" for task in tasks):
            return
        if state in TERMINAL_STATES or time.monotonic() > give_up:
            status = f"{state}, {'restarted' if restarted else 'not restarted'}, tasks {tasks}"
            raise LocalStackError(f"job {job_id} did not recover within {deadline_s:g} s: {status}: {rest.why(job_id)}")
        time.sleep(_POLL_S)


def wait_for_checkpoint(rest: FlinkRest, job_id: str, completed: int, deadline_s: float) -> dict[str, Any]:
    """Wait until the job has completed at least ``completed`` checkpoints and return the latest of them."""
    give_up = time.monotonic() + deadline_s
    while True:
        checkpoints = rest.checkpoints(job_id)
        if checkpoints["counts"]["completed"] >= completed:
            return dict(checkpoints["latest"]["completed"])
        if time.monotonic() > give_up:
            raise LocalStackError(
                f"job {job_id}: {completed} completed checkpoints wanted within {deadline_s:g} s, "
                f"found {checkpoints['counts']}"
            )
        time.sleep(_POLL_S)
