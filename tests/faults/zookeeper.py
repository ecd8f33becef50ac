"""A real ZooKeeper on 127.0.0.1, one server, for the high availability of a local Flink cluster."""

from collections.abc import Mapping

from runners.flink import artifacts
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import LOCALHOST, Process, accepts_connections, free_ports
from runners.flink.local.service import Service
from tests.infra import terraform

_READY_S = 60.0
_MODULE = "org.apache.zookeeper.server.auth.DigestLoginModule"
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
    """One ZooKeeper server. Its data are in a temporary folder.

    With ``passwords``, by user, it lets in who logs in, by the settings of the cluster on EC2.
    """

    name = "ZooKeeper"

    def __init__(self, *, heap_mb: int = 128, passwords: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._passwords = passwords
        self._heap_mb = heap_mb
        self._port = 0

    @property
    def quorum(self) -> str:
        """The value of Flink's ``high-availability.zookeeper.quorum``, ``127.0.0.1:port``."""
        if self._process is None:
            raise LocalStackError("ZooKeeper: not started")
        return f"{LOCALHOST}:{self._port}"

    def settings(self, cluster_id: str) -> dict[str, str]:
        """Flink settings that let the JobManagers of a cluster elect a leader and recover its jobs."""
        return {
            "high-availability.type": "zookeeper",
            "high-availability.zookeeper.quorum": self.quorum,
            "high-availability.cluster-id": f"/{cluster_id}",
            # ZooKeeper notices a killed JobManager after this (milliseconds) instead of a minute.
            "high-availability.zookeeper.client.session-timeout": "10000",
            "zookeeper.sasl.disable": "true",
        }

    def start(self) -> None:
        """Start the server and return when it takes connections.

        Raises:
            LocalStackError: the server runs already, or did not start; with the end of its log.
        """
        java, classpath = artifacts.java(), ":".join(str(jar) for jar in artifacts.zookeeper_jars())
        work_dir = self._open_work_dir()
        (self._port,) = free_ports(1)
        settings = {
            "dataDir": work_dir / "data",
            "clientPort": self._port,
            "clientPortAddress": LOCALHOST,
            # Sessions may be as short as 1 s, so that a dead client is noticed soon, and as long as a client requests.
            "tickTime": 500,
            "maxSessionTimeout": 60_000,
            "admin.enableServer": "false",
        }
        login = []
        if self._passwords is not None:
            template = (terraform.SOURCE / "modules/zookeeper/templates/zoo.cfg.tftpl").read_text().splitlines()
            settings |= {
                line.split("=")[0]: line.split("=")[1] for line in template if line.startswith(("auth", "enforce"))
            }
            users = " ".join(f'user_{user}="{password}"' for user, password in self._passwords.items())
            (work_dir / "jaas.conf").write_text(f"Server {{ {_MODULE} required {users}; }};\n")
            login = [f"-Djava.security.auth.login.config={work_dir / 'jaas.conf'}"]
        (work_dir / "zoo.cfg").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (work_dir / "logback.xml").write_text(_LOGBACK)
        command = [java, f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        command += [f"-Dlogback.configurationFile={work_dir / 'logback.xml'}", f"-Djava.io.tmpdir={work_dir}"]
        command += [*login, "-cp", classpath, _MAIN]
        self._process = Process.start(
            self.name, [*command, str(work_dir / "zoo.cfg")], log_file=work_dir / "log", cwd=work_dir
        )
        self._process.wait_for(
            lambda: accepts_connections(self._port), what="taking connections", deadline_s=_READY_S, every_s=0.1
        )
