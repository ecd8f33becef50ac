"""The JobManagers and the TaskManagers of a local Flink cluster."""

import contextlib
import re

import requests

from runners.flink.errors import LocalStackError
from runners.flink.local.launcher import Launcher
from runners.flink.local.processes import Process, accepts_connections, free_ports, stop_all

READY_S = 90.0

# Only the leading JobManager has a ResourceManager that counts TaskManagers.
_LEADER_METRIC = re.compile(r"^flink_jobmanager_numRegisteredTaskManagers\b", re.MULTILINE)


class JobManagers:
    """The JobManagers of a cluster, one of which leads. Each keeps its ports when it is killed and started again."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._ports: list[tuple[int, int]] = []  # of RPC and REST
        self._processes: dict[int, Process] = {}

    @property
    def running(self) -> list[Process]:
        """The processes that run."""
        return [process for process in self._processes.values() if process.running]

    @property
    def rest_port(self) -> int | None:
        """The REST port of a JobManager that runs, leader or not; None if none runs."""
        return next((self._ports[number][1] for number, jvm in self._processes.items() if jvm.running), None)

    def choose_ports(self) -> tuple[int, int]:
        """Choose free ports for RPC and REST; returns those of the first JobManager."""
        ports = free_ports(2 * self._count)
        self._ports = list(zip(ports[::2], ports[1::2], strict=True))
        return self._ports[0]

    def start(self, launcher: Launcher) -> None:
        """Start each JobManager that does not run, and return when all of them serve REST."""
        for number, ports in enumerate(self._ports):
            killed = self._processes.get(number)
            if killed is not None:
                if killed.running:
                    continue
                killed.stop()
                launcher.remove_local_dirs(killed.name)
            name = "JobManager" if self._count == 1 else f"JobManager-{number}"
            self._processes[number] = launcher.start_job_manager(name, *ports)
        for number, (_, rest_port) in enumerate(self._ports):
            self._processes[number].wait_for(
                lambda port=rest_port: accepts_connections(port),  # type: ignore[misc]
                what="serving REST",
                deadline_s=READY_S,
            )

    def leader(self, launcher: Launcher) -> Process:
        """The JobManager that leads.

        Raises:
            LocalStackError: none leads.
        """
        running = self.running
        if self._count == 1 and running:
            return running[0]
        for process in running:
            with contextlib.suppress(requests.RequestException):
                if _LEADER_METRIC.search(requests.get(launcher.metrics_url(process.name), timeout=5).text):
                    return process
        raise LocalStackError(f"Flink: no JobManager leads; {len(running)} are running")

    def stop(self) -> None:
        """Stop all of them."""
        stop_all(self._processes.values())
        self._processes = {}


class TaskManagers:
    """The TaskManagers of a cluster, in the order in which they were started."""

    def __init__(self) -> None:
        self._processes: list[Process] = []
        self._killed: list[Process] = []  # kept until the end: their workers may still be in the process group
        self._started = 0

    @property
    def expected(self) -> list[Process]:
        """The processes that were started and not killed by ``kill``."""
        return [*self._processes]

    @property
    def running(self) -> list[Process]:
        """The processes that run."""
        return [process for process in self._processes if process.running]

    def start(self, launcher: Launcher) -> Process:
        """Start one more; returns at once."""
        process = launcher.start_task_manager(f"TaskManager-{self._started}")
        self._started += 1
        self._processes.append(process)
        return process

    def remove_local_dirs(self, launcher: Launcher) -> None:
        """Remove what killed TaskManagers have left on the disk."""
        for process in self._killed:
            launcher.remove_local_dirs(process.name)

    def kill(self, index: int) -> int:
        """``kill -9`` the process with this index among those that run; returns its process id."""
        running = self.running
        if not 0 <= index < len(running):
            raise LocalStackError(f"TaskManager {index}: not running; {len(running)} are")
        process = running[index]
        process.kill()
        self._processes.remove(process)
        self._killed.append(process)
        return process.pid

    def stop(self) -> None:
        """Stop all of them, with the workers of those that were killed."""
        stop_all([*self._processes, *self._killed])
        self._processes, self._killed = [], []
