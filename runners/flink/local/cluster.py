"""A Flink cluster on 127.0.0.1: JobManagers and TaskManagers, each a process of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from runners.flink import artifacts, configuration
from runners.flink.errors import LocalStackError
from runners.flink.local.launcher import Launcher
from runners.flink.local.members import READY_S, JobManagers, TaskManagers
from runners.flink.local.processes import LOCALHOST
from runners.flink.local.service import Service
from runners.flink.rest import FlinkRest

_PLUGINS = ("metrics-prometheus",)


class LocalFlink(Service):
    """A session cluster.

    ``task_managers`` are started with ``slots`` task slots each. ``config`` adds to or replaces Flink settings
    (``configuration.BASE`` and ``LOCAL``). ``jars`` go into the cluster's class path beside Flink's own; by default
    these are our connectors. ``plugins`` are further plugin folders, e.g. one with the S3 file system. ``environment``
    is added to the TaskManagers' environment and so to that of their Python workers. ``work_dir`` gets everything,
    state and checkpoints included: ``conf/``, ``log/``, ``checkpoints/``, ``savepoints/``, ``tmp/``.

    If ``config`` makes the cluster highly available, there may be several ``job_managers``, of which one leads, and
    jobs outlive them.
    """

    name = "Flink"

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
        work_dir: Path | None = None,
    ) -> None:
        if task_managers < 0 or slots < 1:
            raise LocalStackError(
                f"Flink: {task_managers} TaskManagers with {slots} slots; at least 0 and 1 are needed"
            )
        if job_managers < 1 or (job_managers > 1 and "high-availability.type" not in (config or {})):
            raise LocalStackError(f"Flink: {job_managers} JobManagers; allowed: 1, more with a ZooKeeper")
        super().__init__(work_dir)
        self._wanted_task_managers = task_managers
        self._slots = slots
        self._config = dict(config or {})
        self._jars = jars
        self._plugins = plugins
        self._environment = dict(environment or {})
        self._settings: dict[str, str] = {}
        self._classpath = ""
        self._launcher: Launcher | None = None
        self._job_managers = JobManagers(job_managers)
        self._task_managers = TaskManagers()

    @property
    def conf_dir(self) -> Path:
        """The folder with config.yaml. The job server needs it too: the submitting program reads ``execution.*``."""
        return self.work_dir / "conf"

    @property
    def log_dir(self) -> Path:
        """Logs of the JobManager, the TaskManagers and (``worker-*``) the Python workers."""
        return self.work_dir / "log"

    @property
    def flink_master(self) -> str:
        """``127.0.0.1:port`` of a JobManager that runs, leader or not, as the job server needs it."""
        port = self._job_managers.rest_port or self._settings.get("rest.port")
        if port is None:
            raise LocalStackError("Flink: rest.port is not known before start")
        return f"{LOCALHOST}:{port}"

    @property
    def rest_url(self) -> str:
        """``http://127.0.0.1:port`` of the REST API and the web UI."""
        return f"http://{self.flink_master}"

    @property
    def rest(self) -> FlinkRest:
        """A client of this cluster's REST API."""
        return FlinkRest(self.rest_url)

    @property
    def job_manager_pid(self) -> int:
        """The leading JobManager's process id."""
        return self._job_managers.leader(self._started()).pid

    @property
    def job_manager_pids(self) -> list[int]:
        """Process ids of the running JobManagers."""
        return [process.pid for process in self._job_managers.running]

    @property
    def task_manager_pids(self) -> list[int]:
        """Process ids of the running TaskManagers, in the order in which they were started."""
        return [process.pid for process in self._task_managers.running]

    @property
    def metrics_urls(self) -> list[str]:
        """Where the running processes serve their metrics to Prometheus, JobManagers first."""
        running = [*self._job_managers.running, *self._task_managers.running]
        return [self._started().metrics_url(process.name) for process in running]

    @property
    def classpath(self) -> str:
        """The class path of the cluster: Flink's lib/ and our jars."""
        return self._classpath

    def start(self) -> None:
        """Start the cluster and return when all TaskManagers have registered with their slots.

        Raises:
            LocalStackError: the cluster runs already, or a process did not start; with the end of its log.
        """
        if self._work_dir is not None:
            raise LocalStackError("Flink: is already started")
        java = artifacts.java()
        flink = artifacts.flink_home()
        jars = artifacts.connectors() if self._jars is None else self._jars
        # Flink's own scripts put flink-dist last as well, so that a jar of ours may shadow what it bundles.
        own = sorted((flink / "lib").glob("*.jar"), key=lambda jar: (jar.name.startswith("flink-dist"), jar.name))
        self._classpath = ":".join(str(jar) for jar in [*own[:-1], *jars, own[-1]])
        self._make_folders([*(flink / "plugins" / name for name in _PLUGINS), *self._plugins])
        self._settings = self._all_settings()
        launcher = self._launcher = Launcher(java, self._classpath, self._settings, self._environment, self.work_dir)
        self._job_managers.start(launcher)
        for _ in range(self._wanted_task_managers):
            self._task_managers.start(launcher)
        self._wait_for_registration()

    def stop(self) -> None:
        """Stop all processes and remove the temporary folder. May be called twice."""
        # The JobManagers last: TaskManagers deregister from them, and stop their workers.
        self._task_managers.stop()
        self._job_managers.stop()
        super().stop()

    def start_task_manager(self) -> int:
        """Remove what killed TaskManagers left on the disk, start one more, return its id when it has registered."""
        launcher = self._started()
        self._task_managers.remove_local_dirs(launcher)
        process = self._task_managers.start(launcher)
        self._wait_for_registration()
        return process.pid

    def kill_task_manager(self, index: int = 0) -> int:
        """``kill -9`` a TaskManager (an index of ``task_manager_pids``) and nothing else; returns its process id."""
        return self._task_managers.kill(index)

    def kill_job_manager(self) -> int:
        """``kill -9`` the leading JobManager; returns its process id. Without ZooKeeper its jobs are lost."""
        leader = self._job_managers.leader(self._started())
        leader.kill()
        return leader.pid

    def restart_job_manager(self) -> None:
        """Start every killed JobManager again on its ports, return when the TaskManagers have found a leader."""
        self._job_managers.start(self._started())
        self._wait_for_registration()

    def _started(self) -> Launcher:
        if self._launcher is None:
            raise LocalStackError("Flink: not started")
        return self._launcher

    def _make_folders(self, plugins: Sequence[Path]) -> None:
        work_dir = self._open_work_dir()
        for name in ("conf", "log", "plugins", "checkpoints", "savepoints", "tmp", "rocksdb"):
            (work_dir / name).mkdir(exist_ok=True)
        for plugin in plugins:
            link = work_dir / "plugins" / plugin.name
            link.unlink(missing_ok=True)
            link.symlink_to(plugin)

    def _all_settings(self) -> dict[str, str]:
        rpc_port, rest_port = self._job_managers.choose_ports()
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

    def _wait_for_registration(self) -> None:
        rest, expected = self.rest, self._task_managers.running
        ids = {process.name.lower() for process in expected}

        def registered() -> bool:
            try:
                slots = {str(task_manager["id"]): task_manager["slotsNumber"] for task_manager in rest.task_managers()}
            except LocalStackError:
                return False  # REST listens before it can answer
            return all(slots.get(name) == self._slots for name in ids)

        what = f"running {len(expected)} TaskManagers with {self._slots} slots each"
        # Only JobManagers that run: a killed one may stay down while another leads.
        for process in [*self._task_managers.expected, *self._job_managers.running]:
            process.wait_for(registered, what=what, deadline_s=READY_S)
