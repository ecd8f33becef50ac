"""The job server: a JVM that accepts Beam pipelines and submits them to Flink (contract: connectors/README.md)."""

import json
from collections.abc import Collection, Mapping, Sequence
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
    ``pipeline.*``) from the program that submits the job: ``configuration.OF_JOBS`` with ``config`` on top; Beam's
    options come on top of both. ``jars`` are further ones that the job's settings name classes of. The JVM does not get
    the environment variables ``without``: it needs no secret.
    """

    name = "job server"
    grace_s = 0  # it holds nothing; its own shutdown waits for open streams

    def __init__(
        self,
        flink_master: str,
        *,
        config: Mapping[str, str] | None = None,
        jars: Sequence[Path] = (),
        without: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._flink_master = flink_master
        self._config = dict(config or {})
        self._jars = jars
        self._without = without
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
        jars = [*artifacts.connectors(), *flink_jars, *self._jars]
        conf_dir = work_dir / "conf"
        conf_dir.mkdir()
        configuration.write(conf_dir, {**configuration.OF_JOBS, **self._config})
        command = [artifacts.java(), "-Xmx512m", "-XX:+UseSerialGC"]
        # Quick to start: the archive of the JDK's classes, and no optimizing compiler for a few submissions.
        command += ["-Xshare:auto", "-XX:TieredStopAtLevel=1", *configuration.JAVA_17_OPTIONS]
        command += [
            f"-Dlog.file={work_dir / 'job-server.log'}",
            f"-Dlog4j.configurationFile={conf_dir / 'log4j.properties'}",
        ]
        command += [f"-Djava.io.tmpdir={work_dir}", "-cp", ":".join(str(jar) for jar in jars), _MAIN]
        command += ["--flink-master", self._flink_master, "--job-host", "127.0.0.1"]
        command += ["--job-port", "0", "--artifact-port", "0", "--expansion-port", "0"]
        command += ["--artifacts-dir", str(work_dir / "artifacts"), "--flink-conf-dir", str(conf_dir)]
        log_file, stdout_file = work_dir / "job-server.log", work_dir / "stdout"
        self._process = Process.start(
            self.name, command, log_file=log_file, stdout_file=stdout_file, without=self._without, cwd=work_dir
        )
        self._job_endpoint = str(self._wait_for_line("job_endpoint", what="ready", deadline_s=_READY_S))

    def wait_submitted(self, deadline_s: float) -> str:
        """The id of the next job that Flink has accepted; each job is returned once, in the order of submission.

        Raises:
            LocalStackError: ``deadline_s`` seconds have passed, or the job server ended; with the end of its log.
        """
        submitted = self._wait_for_line("submitted", what="submitting a job", deadline_s=deadline_s, every_s=0.05)
        return str(submitted["job_id"])

    def stop(self) -> None:
        """Stop the JVM and remove its files; jobs on Flink go on. May be called twice."""
        super().stop()
        self._job_endpoint, self._stdout_offset, self._lines = None, 0, []

    def _wait_for_line(self, key: str, *, what: str, deadline_s: float, every_s: float = 0.1) -> Any:
        """Wait for a line of its output with ``key``, take the line away, and return the value of ``key``."""
        if self._process is None:
            raise LocalStackError("job server: not started")
        self._process.wait_for(
            lambda: self._find_line(key) is not None, what=what, deadline_s=deadline_s, every_s=every_s
        )
        line = self._find_line(key)
        if line is None:
            raise LocalStackError(f"job server: printed no {key!r}")
        self._lines.remove(line)
        return line[key]

    def _find_line(self, key: str) -> dict[str, Any] | None:
        self._read_stdout()
        return next((line for line in self._lines if key in line), None)

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
