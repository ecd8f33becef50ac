"""The job server: a JVM that accepts Beam pipelines and submits them to Flink (contract: connectors/README.md)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runners.flink import artifacts, configuration
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import Process
from runners.flink.local.service import Service

_MAIN = "eventtrigger.flink.JobServer"
_READY_S = 60.0


class JobServer(Service):
    """A job server for one Flink cluster. Jobs on Flink go on when it stops.

    ``flink_master`` is ``host:port`` of Flink's REST API. Flink takes a job's own settings (``execution.*``,
    ``pipeline.*``) from the program that submits the job: from the config.yaml in ``conf_dir``, by default
    ``configuration.OF_JOBS`` with ``config`` on top; Beam's options come on top of both. ``jars`` are the connectors,
    ``heap_mb`` is the JVM's heap, ``arguments`` are further flags of Beam's FlinkJobServerDriver.
    """

    name = "job server"
    grace_s = 0  # it holds nothing; its own shutdown waits for open streams

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
        super().__init__()
        self._flink_master = flink_master
        self._conf_dir = conf_dir
        self._config = dict(config or {})
        self._jars = jars
        self._heap_mb = heap_mb
        self._arguments = arguments
        self._stdout_offset = 0
        self._lines: list[dict[str, Any]] = []
        self._job_endpoint: str | None = None

    @property
    def job_endpoint(self) -> str:
        """``127.0.0.1:port`` for Beam's ``--job_endpoint``."""
        if self._job_endpoint is None:
            raise LocalStackError("job server: not started")
        return self._job_endpoint

    def start(self) -> None:
        """Start the JVM and return when it takes jobs.

        Raises:
            LocalStackError: the JVM runs already, or did not start; with the end of its log.
        """
        work_dir = self._open_work_dir()
        flink_jars = sorted((artifacts.flink_home() / "lib").glob("*.jar"))
        jars = artifacts.connectors() if self._jars is None else self._jars
        (work_dir / "conf").mkdir()
        configuration.write(work_dir / "conf", {**configuration.OF_JOBS, **self._config})
        log4j = work_dir / "conf" / "log4j.properties"
        command = [artifacts.java(), f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC"]
        # Quick to start: the archive of the JDK's classes, and no optimizing compiler for a few submissions.
        command += ["-Xshare:auto", "-XX:TieredStopAtLevel=1", *configuration.JAVA_17_OPTIONS]
        command += [f"-Dlog.file={work_dir / 'job-server.log'}", f"-Dlog4j.configurationFile={log4j}"]
        command += [f"-Djava.io.tmpdir={work_dir}", "-cp", ":".join(str(jar) for jar in [*jars, *flink_jars]), _MAIN]
        command += ["--flink-master", self._flink_master, "--job-host", "127.0.0.1"]
        command += ["--job-port", "0", "--artifact-port", "0", "--expansion-port", "0"]
        command += ["--artifacts-dir", str(work_dir / "artifacts")]
        command += ["--flink-conf-dir", str(self._conf_dir or work_dir / "conf")]
        self._process = Process.start(
            self.name,
            [*command, *self._arguments],
            log_file=work_dir / "job-server.log",
            stdout_file=work_dir / "stdout",
            cwd=work_dir,
        )
        self._process.wait_for(lambda: self._find_line("job_endpoint") is not None, what="ready", deadline_s=_READY_S)
        self._job_endpoint = str(self._pop_value("job_endpoint"))

    def wait_submitted(self, deadline_s: float) -> str:
        """The id of the next job that Flink has accepted; each job is returned once, in the order of submission.

        Raises:
            LocalStackError: ``deadline_s`` seconds have passed, or the job server ended; with the end of its log.
        """
        if self._process is None:
            raise LocalStackError("job server: not started")
        self._process.wait_for(
            lambda: self._find_line("submitted") is not None,
            what="submitting a job",
            deadline_s=deadline_s,
            every_s=0.05,
        )
        return str(self._pop_value("submitted")["job_id"])

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of its log, which say why a submission was refused."""
        return self._process.log_tail(lines) if self._process is not None else "(not started)"

    def stop(self) -> None:
        """Stop the JVM and remove its files; jobs on Flink go on. May be called twice."""
        super().stop()
        self._job_endpoint, self._stdout_offset, self._lines = None, 0, []

    def _find_line(self, key: str) -> dict[str, Any] | None:
        self._read_stdout()
        return next((line for line in self._lines if key in line), None)

    def _pop_value(self, key: str) -> Any:
        line = self._find_line(key)
        if line is None:
            raise LocalStackError(f"job server: printed no {key!r}")
        self._lines.remove(line)
        return line[key]

    def _read_stdout(self) -> None:
        with (self.work_dir / "stdout").open("rb") as stdout:
            stdout.seek(self._stdout_offset)
            new = stdout.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._stdout_offset += len(complete)
        for line in complete.splitlines():
            try:
                self._lines.append(dict(json.loads(line)))
            except ValueError as error:
                raise LocalStackError(f"job server: printed {line[:200]!r}, not a JSON object") from error
