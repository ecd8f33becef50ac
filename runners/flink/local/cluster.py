"""A real Flink cluster on 127.0.0.1: JobManagers and TaskManagers, each a process of its own."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from runners.flink import artifacts, configuration
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import (
    LOCALHOST,
    Process,
    Service,
    accepts_connections,
    free_ports,
    remove_folder,
    stop_all,
    temporary_folder,
)
from runners.flink.rest import FlinkRest

_READY_S = 90.0
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_MEMORY_TOOL = "org.apache.flink.runtime.util.bash.BashJavaUtils"
_MEMORY_RESULT = "BASH_JAVA_UTILS_EXEC_RESULT:"
_PLUGINS = ("metrics-prometheus",)
_TEMPORARY_DIRS = ("io.tmp.dirs", "blob.storage.directory", "web.tmpdir", "web.upload.dir")
# Only a ResourceManager that leads tells how many TaskManagers it knows.
_LEADS = re.compile(r"^flink_jobmanager_numRegisteredTaskManagers\b", re.MULTILINE)


class LocalFlink(Service):
    """A session cluster; a context manager that starts it and leaves nothing.

    ``task_managers`` are started with ``slots`` task slots each. ``config`` adds to or replaces Flink settings
    (``configuration.BASE`` and ``LOCAL``). ``jars`` go into the cluster's class path beside Flink's own; by default
    these are our connectors. ``plugins`` are further plugin folders, e.g. one with the S3 file system. ``environment``
    is added to the TaskManagers' environment and so to that of their Python workers. Without ``work_dir`` everything,
    state and checkpoints included, lies in a temporary folder that ``stop`` removes; a ``work_dir`` is kept.

    With ``zookeeper`` (a quorum as ``host:port``) the cluster is highly available: ``job_managers`` may be several, of
    which one leads, and jobs outlive them.
    """

    def __init__(
        self,
        *,
        task_managers: int = 1,
        slots: int = 2,
        job_managers: int = 1,
        zookeeper: str | None = None,
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
        if job_managers < 1 or (job_managers > 1 and zookeeper is None):
            raise LocalStackError(f"Flink: {job_managers} JobManagers; allowed: 1, more with a ZooKeeper")
        self._wanted_task_managers = task_managers
        self._slots = slots
        self._config = dict(config or {})
        self._jars = jars
        self._plugins = plugins
        self._environment = dict(environment or {})
        self._given_work_dir = work_dir
        self._work_dir: Path | None = None
        self._settings: dict[str, str] = {}
        self._zookeeper = zookeeper
        self._job_managers: list[Process] = []
        self._job_manager_ports = [(0, 0)] * job_managers  # of RPC and REST
        self._task_managers: list[Process] = []
        self._killed: list[Process] = []  # kept until the end: their workers may still be in the process group
        self._started = 0
        self._memory: dict[str, tuple[list[str], list[str]]] = {}
        self._classpath = ""
        self._java = ""
        self._metrics_of: dict[str, str] = {}

    @property
    def work_dir(self) -> Path:
        """The folder of this cluster: ``conf/``, ``log/``, ``checkpoints/``, ``savepoints/``, ``tmp/``."""
        if self._work_dir is None:
            raise LocalStackError("Flink: not started")
        return self._work_dir

    @property
    def conf_dir(self) -> Path:
        """The folder with config.yaml; the job server needs it too (``execution.*`` is read by who submits)."""
        return self.work_dir / "conf"

    @property
    def log_dir(self) -> Path:
        """Logs of the JobManager, the TaskManagers and (``worker-*``) the Python workers."""
        return self.work_dir / "log"

    @property
    def checkpoint_dir(self) -> Path:
        """Where checkpoints are written, unless ``config`` says otherwise."""
        return self.work_dir / "checkpoints"

    @property
    def savepoint_dir(self) -> Path:
        """Where savepoints are written, unless ``config`` or the request says otherwise."""
        return self.work_dir / "savepoints"

    @property
    def flink_master(self) -> str:
        """``127.0.0.1:port`` of a JobManager, as the job server wants it; one that stands by does as well."""
        ports = [rest for _, rest in self._job_manager_ports]
        running = [port for port, one in zip(ports, self._job_managers, strict=False) if one.running]
        return f"{LOCALHOST}:{running[0] if running else self._setting('rest.port')}"

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
        return self._leader().pid

    @property
    def job_manager_pids(self) -> list[int]:
        """Process ids of the running JobManagers."""
        return [job_manager.pid for job_manager in self._job_managers if job_manager.running]

    @property
    def task_manager_pids(self) -> list[int]:
        """Process ids of the running TaskManagers, in the order in which they were started."""
        return [task_manager.pid for task_manager in self._task_managers if task_manager.running]

    @property
    def metrics_urls(self) -> list[str]:
        """Where the processes that run show their metrics to Prometheus, JobManagers first."""
        processes = (*self._job_managers, *self._task_managers)
        return [self._metrics_of[process.name] for process in processes if process.running]

    @property
    def classpath(self) -> str:
        """The class path of the cluster: Flink's lib/ and our jars."""
        return self._classpath

    def start(self) -> None:
        """Start the cluster and return when all TaskManagers have registered with their slots.

        Raises LocalStackError with the end of the failing process's log.
        """
        if self._job_managers:
            raise LocalStackError("Flink: is already started")
        self._java = artifacts.java()
        flink = artifacts.flink_home()
        jars = artifacts.connectors() if self._jars is None else self._jars
        # Flink's own scripts put flink-dist last as well, so that a jar of ours may shadow what it bundles.
        own = sorted((flink / "lib").glob("*.jar"), key=lambda jar: (jar.name.startswith("flink-dist"), jar.name))
        self._classpath = ":".join(str(jar) for jar in [*own[:-1], *jars, own[-1]])
        self._prepare(flink)
        with ThreadPoolExecutor(2) as pool:
            roles = {role: pool.submit(self._memory_options, flink, role) for role in ("JM", "TM")}
            self._memory = {role: options.result() for role, options in roles.items()}
        for number in range(len(self._job_manager_ports)):
            self._job_managers.append(self._launch_job_manager(number))
        self._wait_for_job_managers()
        for _ in range(self._wanted_task_managers):
            self._start_task_manager()
        self._wait_for_registration()

    def stop(self) -> None:
        """Stop all processes and remove the temporary folder. May be called twice."""
        # The JobManagers last: TaskManagers say goodbye to them, and take their workers along.
        stop_all([*self._task_managers, *self._killed])
        stop_all(self._job_managers)
        self._job_managers, self._task_managers, self._killed = [], [], []
        if self._work_dir is not None and self._given_work_dir is None:
            remove_folder(self._work_dir)
        self._work_dir = None

    def start_task_manager(self) -> int:
        """Start one more TaskManager, return its process id when it has registered.

        As a supervisor of machines does, it first removes what killed ones have left on the disk.
        """
        for killed in self._killed:
            self._remove_local_dirs(killed.name)
        process = self._start_task_manager()
        self._wait_for_registration()
        return process.pid

    def kill_task_manager(self, index: int = 0) -> int:
        """``kill -9`` a TaskManager (an index of ``task_manager_pids``) and nothing else; returns its process id."""
        running = [task_manager for task_manager in self._task_managers if task_manager.running]
        if not 0 <= index < len(running):
            raise LocalStackError(f"TaskManager {index}: not running; {len(running)} are")
        victim = running[index]
        victim.kill()
        self._task_managers.remove(victim)
        self._killed.append(victim)
        return victim.pid

    def kill_job_manager(self) -> int:
        """``kill -9`` the leading JobManager; returns its process id. Without ZooKeeper its jobs are forgotten."""
        victim = self._leader()
        victim.kill()
        return victim.pid

    def restart_job_manager(self) -> None:
        """Start every killed JobManager again on its ports, return when the TaskManagers have found a leader.

        What a killed one has left on the disk is removed first.
        """
        for number, job_manager in enumerate(self._job_managers):
            if not job_manager.running:
                job_manager.stop()
                self._remove_local_dirs(job_manager.name)
                self._job_managers[number] = self._launch_job_manager(number)
        self._wait_for_job_managers()
        self._wait_for_registration()

    def _prepare(self, flink: Path) -> None:
        work_dir = self._given_work_dir or temporary_folder("event-trigger-flink-")
        self._work_dir = work_dir.resolve()
        for name in ("conf", "log", "plugins", "checkpoints", "savepoints", "tmp", "rocksdb"):
            (self.work_dir / name).mkdir(parents=True, exist_ok=True)
        for plugin in [*(flink / "plugins" / name for name in _PLUGINS), *self._plugins]:
            link = self.work_dir / "plugins" / plugin.name
            link.unlink(missing_ok=True)
            link.symlink_to(plugin)
        ports = free_ports(2 * len(self._job_manager_ports))
        self._job_manager_ports = list(zip(ports[::2], ports[1::2], strict=True))
        rpc_port, rest_port = self._job_manager_ports[0]
        self._settings = {
            **configuration.BASE,
            **configuration.LOCAL,
            **({} if self._zookeeper is None else self._high_availability(self._zookeeper)),
            "jobmanager.rpc.port": str(rpc_port),
            "rest.port": str(rest_port),
            "taskmanager.numberOfTaskSlots": str(self._slots),
            "state.checkpoints.dir": self.checkpoint_dir.as_uri(),
            "state.savepoints.dir": self.savepoint_dir.as_uri(),
            **self._config,
        }
        configuration.write(self.conf_dir, self._settings)

    def _high_availability(self, zookeeper: str) -> dict[str, str]:
        return {
            "high-availability.type": "zookeeper",
            "high-availability.zookeeper.quorum": zookeeper,
            "high-availability.cluster-id": f"/{self.work_dir.name}",
            "high-availability.storageDir": (self.work_dir / "ha").as_uri(),
            # A killed JobManager is missed after this (milliseconds) instead of a minute.
            "high-availability.zookeeper.client.session-timeout": "10000",
            "zookeeper.sasl.disable": "true",
        }

    def _memory_options(self, flink: Path, role: str) -> tuple[list[str], list[str]]:
        """JVM options and ``-D`` arguments that give a process the memory its configuration says, as Flink computes it.

        Without them a JVM sizes its heap by the machine, and Flink refuses to start a TaskManager.
        """
        tool_path = f"{flink / 'bin' / 'bash-java-utils.jar'}:{self._classpath.rpartition(':')[2]}"
        command = [self._java, "-XX:TieredStopAtLevel=1", "-cp", tool_path, _MEMORY_TOOL]
        done = subprocess.run(
            [*command, f"GET_{role}_RESOURCE_PARAMS", "--configDir", str(self.conf_dir)],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        found = [
            line.removeprefix(_MEMORY_RESULT) for line in done.stdout.splitlines() if line.startswith(_MEMORY_RESULT)
        ]
        if done.returncode != 0 or len(found) != 2:
            sizes = {key: value for key, value in self._settings.items() if "memory" in key}
            raise LocalStackError(f"Flink's memory settings {sizes} are refused: {done.stdout}{done.stderr}")
        return found[0].split(), found[1].split()

    def _launch_job_manager(self, number: int) -> Process:
        rpc, rest = self._job_manager_ports[number]
        ports = {"jobmanager.rpc.port": rpc, "high-availability.jobmanager.port": rpc, "rest.port": rest}
        arguments = ["--executionMode", "cluster", *(part for key in ports for part in ("-D", f"{key}={ports[key]}"))]
        name = "JobManager" if len(self._job_manager_ports) == 1 else f"JobManager-{number}"
        return self._launch(name, "JM", _JOB_MANAGER, arguments, ["-XX:+UseSerialGC"])

    def _wait_for_job_managers(self) -> None:
        for job_manager, (_, port) in zip(self._job_managers, self._job_manager_ports, strict=True):
            job_manager.wait_for(
                lambda port=port: accepts_connections(port),  # type: ignore[misc]
                what="serving REST",
                deadline_s=_READY_S,
            )

    def _leader(self) -> Process:
        running = [job_manager for job_manager in self._job_managers if job_manager.running]
        if len(self._job_managers) == 1 and running:
            return running[0]
        for job_manager in running:
            with contextlib.suppress(requests.RequestException):
                if _LEADS.search(requests.get(self._metrics_of[job_manager.name], timeout=5).text):
                    return job_manager
        raise LocalStackError(f"Flink: no JobManager leads; {len(running)} are running")

    def _start_task_manager(self) -> Process:
        name = f"TaskManager-{self._started}"
        self._started += 1
        # A resource id of its own: a restarted TaskManager must not be taken for the killed one.
        arguments = ["-D", f"taskmanager.resource-id={name.lower()}"]
        state = self._state_dir(name)
        state.mkdir(parents=True, exist_ok=True)
        arguments += ["-D", f"state.backend.rocksdb.localdir={state}"]
        process = self._launch(name, "TM", _TASK_MANAGER, arguments, ["-XX:+UseG1GC"])
        self._task_managers.append(process)
        return process

    def _temporary_dir(self, name: str) -> Path:
        """A process's own folder for all that it needs while it lives, as on a machine of its own."""
        return self.work_dir / "tmp" / name.lower()

    def _state_dir(self, task_manager: str) -> Path:
        """A TaskManager's own folder for RocksDB."""
        return self.work_dir / "rocksdb" / task_manager.lower()

    def _remove_local_dirs(self, name: str) -> None:
        for folder in (self._temporary_dir(name), self._state_dir(name)):
            shutil.rmtree(folder, ignore_errors=True)

    def _launch(
        self, name: str, role: str, entry_class: str, arguments: Sequence[str], jvm_options: Sequence[str]
    ) -> Process:
        memory, dynamic = self._memory[role]
        (metrics_port,) = free_ports(1)
        temporary = self._temporary_dir(name)
        temporary.mkdir(parents=True, exist_ok=True)
        log_file = self.log_dir / f"{name.lower()}.log"
        command = [self._java, *memory, *jvm_options, "-Xshare:auto", *configuration.JAVA_17_OPTIONS]
        command += [f"-Djava.io.tmpdir={temporary}", f"-Dlog.file={log_file}"]
        command += [f"-Dlog4j.configurationFile={self.conf_dir / 'log4j.properties'}"]
        command += ["-cp", self._classpath, entry_class, "--configDir", str(self.conf_dir), *dynamic, *arguments]
        command += ["-D", f"metrics.reporter.prom.port={metrics_port}"]
        for key in _TEMPORARY_DIRS:
            command += ["-D", f"{key}={temporary}"]
        process = Process.start(
            name,
            command,
            log_file=self.log_dir / f"{name.lower()}.out",
            env={
                "FLINK_CONF_DIR": str(self.conf_dir),
                "FLINK_PLUGINS_DIR": str(self.work_dir / "plugins"),
                "FLINK_LIB_DIR": str(artifacts.flink_home() / "lib"),
                "EVENT_TRIGGER_WORKER_LOG_DIR": str(self.log_dir),
                "TMPDIR": str(temporary),
                **self._environment,
            },
            cwd=self.work_dir,
        )
        process.log_file = log_file
        self._metrics_of[name] = f"http://{LOCALHOST}:{metrics_port}/metrics"
        return process

    def _wait_for_registration(self) -> None:
        rest, expected = self.rest, len(self.task_manager_pids)
        ids = {f"{process.name.lower()}" for process in self._task_managers if process.running}

        def registered() -> bool:
            try:
                found = {str(task_manager["id"]): task_manager["slotsNumber"] for task_manager in rest.task_managers()}
            except LocalStackError:
                return False  # REST listens before it can answer
            return all(found.get(name) == self._slots for name in ids)

        what = f"running {expected} TaskManagers with {self._slots} slots each"
        # A JobManager that was killed may stay so; another leads.
        for process in [*self._task_managers, *(one for one in self._job_managers if one.running)]:
            process.wait_for(registered, what=what, deadline_s=_READY_S)

    def _setting(self, key: str) -> str:
        if key not in self._settings:
            raise LocalStackError(f"Flink: {key} is not known before start")
        return self._settings[key]
