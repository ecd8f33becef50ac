"""A Flink cluster on 127.0.0.1: a JobManager and TaskManagers, each a process of its own."""

import itertools
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from runners.flink import artifacts, configuration
from runners.flink.errors import LocalStackError
from runners.flink.local.launcher import Launcher
from runners.flink.local.processes import LOCALHOST, Process, accepts_connections, free_ports, stop_all
from runners.flink.local.service import Service
from runners.flink.rest import FlinkRest

READY_S = 90.0


class LocalFlink(Service):
    """A session cluster.

    ``task_managers`` are started with ``slots`` task slots each. ``config`` adds to or replaces Flink settings
    (``configuration.BASE`` and ``LOCAL``). ``jars`` go into the cluster's class path beside Flink's own; by default
    these are our connectors. ``environment`` is added to the TaskManagers' environment and so to that of their Python
    workers. JVMs of a ``long_lived`` cluster take half a minute to compile themselves and then need less CPU an event;
    those of another are warm in seconds. ``work_dir`` gets everything, state and checkpoints included: ``conf/``,
    ``log/``, ``checkpoints/``, ``savepoints/``, ``tmp/``.
    """

    name = "Flink"

    def __init__(
        self,
        *,
        task_managers: int = 1,
        slots: int = 2,
        config: Mapping[str, str] | None = None,
        jars: Sequence[Path] | None = None,
        environment: Mapping[str, str] | None = None,
        long_lived: bool = False,
    ) -> None:
        if task_managers < 0 or slots < 1:
            raise LocalStackError(
                f"Flink: {task_managers} TaskManagers with {slots} slots; at least 0 and 1 are needed"
            )
        super().__init__()
        self._wanted_task_managers = task_managers
        self._slots = slots
        self._config = dict(config or {})
        self._jars = jars
        self._environment = dict(environment or {})
        self._long_lived = long_lived
        self._settings: dict[str, str] = {}
        self._class_path = ""
        self._launcher: Launcher | None = None
        self._job_managers: list[Process] = []
        self._task_managers: list[Process] = []
        self._numbers = itertools.count()  # of TaskManagers

    @property
    def flink_master(self) -> str:
        """``127.0.0.1:port`` of the JobManager, as the job server needs it."""
        if "rest.port" not in self._settings:
            raise LocalStackError("Flink: rest.port is not known before start")
        return f"{LOCALHOST}:{self._settings['rest.port']}"

    @property
    def rest_url(self) -> str:
        """``http://127.0.0.1:port`` of the REST API and the web UI."""
        return f"http://{self.flink_master}"

    @property
    def rest(self) -> FlinkRest:
        """A client of this cluster's REST API."""
        return FlinkRest(self.rest_url)

    @property
    def metrics_urls(self) -> list[str]:
        """Where the running processes serve their metrics to Prometheus, JobManagers first."""
        urls = self._started().metrics_urls
        return [urls[process.name] for process in running([*self._job_managers, *self._task_managers])]

    @property
    def task_manager_pids(self) -> list[int]:
        """The process ids of the TaskManagers that run."""
        return [process.pid for process in running(self._task_managers)]

    def start(self) -> None:
        """Start the cluster and return when all TaskManagers have registered with their slots.

        Raises:
            LocalStackError: the cluster runs already, or a process did not start; with the end of its log.
        """
        java = artifacts.java()
        flink = artifacts.flink_home()
        jars = artifacts.connectors() if self._jars is None else self._jars
        # Flink's own scripts put flink-dist last as well, so that a jar of ours may shadow what it bundles.
        own = sorted((flink / "lib").glob("*.jar"), key=lambda jar: (jar.name.startswith("flink-dist"), jar.name))
        self._make_folders([flink / "plugins" / "metrics-prometheus"])
        self._class_path = ":".join(str(jar) for jar in [*own[:-1], *jars, own[-1]])
        self._settings = self._all_settings()
        # Their class is in our jars, of which a test's cluster may have none.
        closed = configuration.CLOSED_HTTP_SERVERS if jars else ()
        options = closed if self._long_lived else (*closed, "-XX:TieredStopAtLevel=1")
        self._launcher = Launcher(java, self._class_path, self._settings, self._environment, self.work_dir, options)
        self._start_job_managers()
        for _ in range(self._wanted_task_managers):
            self._start_task_manager()
        self._wait_for_registration()

    def stop(self) -> None:
        """Stop all processes and remove the temporary folder. May be called twice."""
        # The JobManagers last: TaskManagers deregister from them, and stop their workers.
        stop_all(self._task_managers)
        stop_all(self._job_managers)
        self._task_managers, self._job_managers = [], []
        super().stop()

    def _started(self) -> Launcher:
        if self._launcher is None:
            raise LocalStackError("Flink: not started")
        return self._launcher

    def _make_folders(self, plugins: Sequence[Path]) -> None:
        work_dir = self._open_work_dir()
        for name in ("conf", "log", "plugins", "checkpoints", "savepoints", "tmp", "rocksdb"):
            (work_dir / name).mkdir()
        for plugin in plugins:
            (work_dir / "plugins" / plugin.name).symlink_to(plugin)

    def _all_settings(self) -> dict[str, str]:
        rpc_port, rest_port = free_ports(2)
        return {
            **configuration.BASE,
            **configuration.LOCAL,
            "jobmanager.rpc.port": str(rpc_port),
            "rest.port": str(rest_port),
            "taskmanager.numberOfTaskSlots": str(self._slots),
            "state.checkpoints.dir": (self.work_dir / "checkpoints").as_uri(),
            "state.savepoints.dir": (self.work_dir / "savepoints").as_uri(),
            **self._config,
        }

    def _start_job_managers(self) -> None:
        """Start the JobManager and return when it serves REST."""
        process = self._started().start_job_manager("JobManager")
        self._job_managers.append(process)
        port = int(self._settings["rest.port"])
        process.wait_for(lambda: accepts_connections(port), what="serving REST", deadline_s=READY_S)

    def replace_dead_task_managers(self) -> int:
        """Start a TaskManager for each that has ended, as a supervisor would. Returns at once, with their number."""
        dead = [process for process in self._task_managers if not process.running]
        for process in dead:
            process.stop()  # what it has left of its workers
            self._task_managers.remove(process)
            self._remove_local_dirs(process.name)
            self._start_task_manager()
        return len(dead)

    def _start_task_manager(self) -> Process:
        process = self._started().start_task_manager(f"TaskManager-{next(self._numbers)}")
        self._task_managers.append(process)
        return process

    def _remove_local_dirs(self, name: str) -> None:
        """Remove what a killed process has left on the disk."""
        for folder in ("tmp", "rocksdb"):
            shutil.rmtree(self.work_dir / folder / name.lower(), ignore_errors=True)

    def _wait_for_registration(self) -> None:
        rest, expected = self.rest, running(self._task_managers)
        ids = {process.name.lower() for process in expected}

        def registered() -> bool:
            try:
                slots = {str(task_manager["id"]): task_manager["slotsNumber"] for task_manager in rest.task_managers()}
            except LocalStackError:
                return False  # REST listens before it can answer
            return all(slots.get(name) == self._slots for name in ids)

        what = f"running {len(expected)} TaskManagers with {self._slots} slots each"
        # Only JobManagers that run: a killed one may stay down while another leads.
        for process in [*self._task_managers, *running(self._job_managers)]:
            process.wait_for(registered, what=what, deadline_s=READY_S)


def running(processes: Iterable[Process]) -> list[Process]:
    """Those of the processes that run."""
    return [process for process in processes if process.running]
