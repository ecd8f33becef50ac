"""Starts the JVMs of a local Flink cluster."""

import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runners.flink import artifacts, configuration
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import LOCALHOST, Process, free_ports

_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_MEMORY_TOOL = "org.apache.flink.runtime.util.bash.BashJavaUtils"
_MEMORY_RESULT = "BASH_JAVA_UTILS_EXEC_RESULT:"
_TEMPORARY_DIRS = ("io.tmp.dirs", "blob.storage.directory", "web.tmpdir", "web.upload.dir")
_ROLES = ("JM", "TM")


class Launcher:
    """Starts JVMs of one cluster with the class path and the settings that they share.

    ``work_dir`` has ``conf/``, ``log/`` and ``plugins/``; ``environment`` is added to that of each JVM. Each JVM gets
    temporary folders of its own, as on a machine of its own, and a port where Prometheus finds its metrics
    (``metrics_urls``, by the name of the process).

    Raises:
        LocalStackError: Flink refuses the memory settings.
    """

    def __init__(
        self,
        java: str,
        class_path: str,
        settings: Mapping[str, str],
        environment: Mapping[str, str],
        work_dir: Path,
        options: Sequence[str] = (),
    ) -> None:
        self._java = java
        self._class_path = class_path
        self._settings = settings
        self._environment = environment
        self._work_dir = work_dir
        self._options = options
        configuration.write(work_dir / "conf", settings)
        self.metrics_urls: dict[str, str] = {}
        with ThreadPoolExecutor(len(_ROLES)) as pool:
            self._memory = dict(zip(_ROLES, pool.map(self._memory_options, _ROLES), strict=True))

    def start_job_manager(self, name: str, *arguments: str) -> Process:
        """Start a JobManager, ``arguments`` added to its command line; returns at once."""
        return self._start(name, "JM", _JOB_MANAGER, ["--executionMode", "cluster", *arguments], "-XX:+UseSerialGC")

    def start_task_manager(self, name: str) -> Process:
        """Start a TaskManager whose id is ``name`` in lower case; returns at once."""
        state = self._work_dir / "rocksdb" / name.lower()
        state.mkdir(parents=True, exist_ok=True)
        # A resource id of its own: Flink must not take a restarted TaskManager for the killed one.
        arguments = ["-D", f"taskmanager.resource-id={name.lower()}", "-D", f"state.backend.rocksdb.localdir={state}"]
        return self._start(name, "TM", _TASK_MANAGER, arguments, "-XX:+UseG1GC")

    def _start(self, name: str, role: str, entry_class: str, arguments: Sequence[str], collector: str) -> Process:
        memory, dynamic = self._memory[role]
        (metrics_port,) = free_ports(1)
        conf_dir, log_dir = self._work_dir / "conf", self._work_dir / "log"
        temporary = self._work_dir / "tmp" / name.lower()
        temporary.mkdir(parents=True, exist_ok=True)
        log_file = log_dir / f"{name.lower()}.log"
        command = [self._java, *memory, collector, "-Xshare:auto", *configuration.JAVA_17_OPTIONS]
        command += [f"-Djava.io.tmpdir={temporary}", f"-Dlog.file={log_file}"]
        command += [f"-Dlog4j.configurationFile={conf_dir / 'log4j.properties'}", *self._options]
        command += ["-cp", self._class_path, entry_class, "--configDir", str(conf_dir), *dynamic, *arguments]
        command += ["-D", f"metrics.reporter.prom.port={metrics_port}"]
        for key in _TEMPORARY_DIRS:
            command += ["-D", f"{key}={temporary}"]
        process = Process.start(
            name,
            command,
            log_file=log_dir / f"{name.lower()}.out",
            env={
                "FLINK_CONF_DIR": str(conf_dir),
                "FLINK_PLUGINS_DIR": str(self._work_dir / "plugins"),
                "FLINK_LIB_DIR": str(artifacts.flink_home() / "lib"),
                "EVENT_TRIGGER_WORKER_LOG_DIR": str(log_dir),
                "TMPDIR": str(temporary),
                **self._environment,
            },
            cwd=self._work_dir,
        )
        process.log_file = log_file
        self.metrics_urls[name] = f"http://{LOCALHOST}:{metrics_port}/metrics"
        return process

    def _memory_options(self, role: str) -> tuple[list[str], list[str]]:
        """JVM options and ``-D`` arguments with the memory that the configuration gives a role, as Flink computes them.

        Without them a JVM sizes its heap by the machine, and Flink refuses to start a TaskManager.
        """
        flink_dist = self._class_path.rpartition(":")[2]
        tool_path = f"{artifacts.flink_home() / 'bin' / 'bash-java-utils.jar'}:{flink_dist}"
        command = [self._java, "-XX:TieredStopAtLevel=1", "-cp", tool_path, _MEMORY_TOOL]
        command += [f"GET_{role}_RESOURCE_PARAMS", "--configDir", str(self._work_dir / "conf")]
        result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        results = [
            line.removeprefix(_MEMORY_RESULT) for line in result.stdout.splitlines() if line.startswith(_MEMORY_RESULT)
        ]
        if result.returncode != 0 or len(results) != 2:
            sizes = {key: value for key, value in self._settings.items() if "memory" in key}
            raise LocalStackError(f"Flink's memory settings {sizes} are refused: {result.stdout}{result.stderr}")
        return results[0].split(), results[1].split()
