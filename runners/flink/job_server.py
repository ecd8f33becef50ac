"""The job server: a JVM that takes Beam pipelines and submits them to Flink (contract: connectors/README.md)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runners.flink import artifacts, configuration
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import Process, Service, remove_folder, temporary_folder

_MAIN = "eventtrigger.flink.JobServer"
_READY_S = 60.0


class JobServer(Service):
    """A running job server for one Flink cluster; a context manager.

    ``flink_master`` is ``host:port`` of Flink's REST API. Flink takes a job's own settings (``execution.*``,
    ``pipeline.*``) from who submits it: from the config.yaml in ``conf_dir``, by default ``configuration.OF_JOBS`` with
    ``config`` on top; Beam's options come on top of both. ``jars`` are the connectors, ``heap_mb`` is the JVM's heap,
    ``arguments`` are further flags of Beam's FlinkJobServerDriver.
    """

    def __init__(
        self,
        flink_master: str,
        *,
        conf_dir: Path | None = None,
        config: Mapping[str, str] | None = None,
        jars: Sequence[Path] | None = None,
        heap_mb: int = 512,
        arguments: Sequence[str] = (),
    ) -> None:
        self._flink_master = flink_master
        self._conf_dir = conf_dir
        self._config = dict(config or {})
        self._jars = jars
        self._heap_mb = heap_mb
        self._arguments = arguments
        self._work_dir: Path | None = None
        self._process: Process | None = None
        self._read = 0
        self._lines: list[dict[str, Any]] = []
        self._job_endpoint: str | None = None

    @property
    def job_endpoint(self) -> str:
        """``127.0.0.1:port`` for Beam's ``--job_endpoint``."""
        if self._job_endpoint is None:
            raise LocalStackError("job server: not started")
        return self._job_endpoint

    def start(self) -> None:
        """Start the JVM and return when it takes jobs. Raises LocalStackError with the end of its log otherwise."""
        if self._process is not None:
            raise LocalStackError("job server: is already started")
        work_dir = self._work_dir = temporary_folder("event-trigger-job-server-")
        own = sorted((artifacts.flink_home() / "lib").glob("*.jar"))
        jars = artifacts.connectors() if self._jars is None else self._jars
        (work_dir / "conf").mkdir()
        configuration.write(work_dir / "conf", {**configuration.OF_JOBS, **self._config})
        log4j = work_dir / "conf" / "log4j.properties"
        command = [artifacts.java(), f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC"]
        # Quick to start: the archive of the JDK's classes, and no optimizing compiler for a few submissions.
        command += ["-Xshare:auto", "-XX:TieredStopAtLevel=1", *configuration.JAVA_17_OPTIONS]
        command += [f"-Dlog.file={work_dir / 'job-server.log'}", f"-Dlog4j.configurationFile={log4j}"]
        command += [f"-Djava.io.tmpdir={work_dir}", "-cp", ":".join(str(jar) for jar in [*jars, *own]), _MAIN]
        command += ["--flink-master", self._flink_master, "--job-host", "127.0.0.1"]
        command += ["--job-port", "0", "--artifact-port", "0", "--expansion-port", "0"]
        command += ["--artifacts-dir", str(work_dir / "artifacts")]
        command += ["--flink-conf-dir", str(self._conf_dir or work_dir / "conf")]
        self._process = Process.start(
            "job server",
            [*command, *self._arguments],
            log_file=work_dir / "job-server.log",
            stdout_file=work_dir / "stdout",
            cwd=work_dir,
        )
        self._process.wait_for(lambda: self._find("job_endpoint") is not None, what="ready", deadline_s=_READY_S)
        self._job_endpoint = str(self._take("job_endpoint"))

    def wait_submitted(self, deadline_s: float) -> str:
        """The id of the next job that Flink has taken; each job is returned once, in the order of submission.

        Raises LocalStackError with the end of the log after ``deadline_s`` seconds, or when the job server ended.
        """
        if self._process is None:
            raise LocalStackError("job server: not started")
        self._process.wait_for(
            lambda: self._find("submitted") is not None, what="submitting a job", deadline_s=deadline_s, every_s=0.05
        )
        return str(self._take("submitted")["job_id"])

    def log_tail(self, lines: int = 60) -> str:
        """The end of its log: what to show when a submission is refused."""
        return self._process.log_tail(lines) if self._process is not None else "(not started)"

    def stop(self) -> None:
        """Stop the JVM and remove its files; jobs on Flink go on. May be called twice."""
        if self._process is not None:
            self._process.stop(grace_s=0)  # it holds nothing; its own shutdown waits for open streams
            self._process = None
        if self._work_dir is not None:
            remove_folder(self._work_dir)
            self._work_dir = None
        self._job_endpoint, self._read, self._lines = None, 0, []

    def _find(self, key: str) -> dict[str, Any] | None:
        self._read_stdout()
        return next((line for line in self._lines if key in line), None)

    def _take(self, key: str) -> Any:
        line = self._find(key)
        if line is None:
            raise LocalStackError(f"job server: printed no {key!r}")
        self._lines.remove(line)
        return line[key]

    def _read_stdout(self) -> None:
        if self._work_dir is None:
            return
        with (self._work_dir / "stdout").open("rb") as stdout:
            stdout.seek(self._read)
            new = stdout.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._read += len(complete)
        for line in complete.splitlines():
            try:
                self._lines.append(dict(json.loads(line)))
            except ValueError as error:
                raise LocalStackError(f"job server: printed {line[:200]!r}, not a JSON object") from error
