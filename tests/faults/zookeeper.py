"""A real ZooKeeper on 127.0.0.1, one server, for the high availability of a local Flink cluster."""

from pathlib import Path

from runners.flink import artifacts
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import (
    LOCALHOST,
    Process,
    Service,
    accepts_connections,
    free_ports,
    remove_folder,
    temporary_folder,
)

_READY_S = 60.0
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"

_LOGBACK = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %-5level %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
"""


class LocalZooKeeper(Service):
    """One ZooKeeper server; a context manager that starts it and leaves nothing. Its data are gone with it."""

    def __init__(self, *, heap_mb: int = 128) -> None:
        self._heap_mb = heap_mb
        self._work_dir: Path | None = None
        self._port = 0
        self._process: Process | None = None

    @property
    def quorum(self) -> str:
        """What Flink's ``high-availability.zookeeper.quorum`` wants, ``127.0.0.1:port``."""
        if self._process is None:
            raise LocalStackError("ZooKeeper: not started")
        return f"{LOCALHOST}:{self._port}"

    def start(self) -> None:
        """Start the server and return when it takes connections. Raises LocalStackError with its log's end."""
        if self._process is not None:
            raise LocalStackError("ZooKeeper: is already started")
        java, classpath = artifacts.java(), ":".join(str(jar) for jar in artifacts.zookeeper_jars())
        work_dir = self._work_dir = temporary_folder("event-trigger-zookeeper-")
        (self._port,) = free_ports(1)
        settings = {
            "dataDir": work_dir / "data",
            "clientPort": self._port,
            "clientPortAddress": LOCALHOST,
            # Sessions may be as short as 1 s, so that who died is missed soon, and as long as the client asks for.
            "tickTime": 500,
            "maxSessionTimeout": 60_000,
            "admin.enableServer": "false",
        }
        (work_dir / "zoo.cfg").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (work_dir / "logback.xml").write_text(_LOGBACK)
        command = [java, f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        command += [f"-Dlogback.configurationFile={work_dir / 'logback.xml'}", f"-Djava.io.tmpdir={work_dir}"]
        command += ["-cp", classpath, _MAIN]
        self._process = Process.start(
            "ZooKeeper", [*command, str(work_dir / "zoo.cfg")], log_file=work_dir / "log", cwd=work_dir
        )
        self._process.wait_for(
            lambda: accepts_connections(self._port), what="taking connections", deadline_s=_READY_S, every_s=0.1
        )

    def stop(self) -> None:
        """Stop the server and remove its files. May be called twice."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._work_dir is not None:
            remove_folder(self._work_dir)
            self._work_dir = None
