"""A real Kafka broker (KRaft, one node) on 127.0.0.1, for demo and tests."""

import base64
import contextlib
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from runners.flink import artifacts
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import LOCALHOST, Process, accepts_connections, free_ports
from runners.flink.local.service import Service

_READY_S = 180.0
_TOPIC_S = 30.0
_LOG4J = """\
rootLogger.level=INFO
rootLogger.appenderRef.file.ref=file
appender.file.name=file
appender.file.type=File
appender.file.fileName=${sys:log.file}
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c - %m%n
"""


class LocalKafka(Service):
    """One Kafka broker.

    ``config`` adds to or replaces the broker's properties. ``work_dir`` holds ``server.properties``, ``data/`` and
    ``broker.log``.
    """

    name = "Kafka broker"
    # No optimizing compiler for a broker that lives for minutes.
    jvm_options: Sequence[str] = ("-Xmx512m", "-Xms128m", "-XX:TieredStopAtLevel=1")

    def __init__(self, *, config: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._config = dict(config or {})
        self._ports: list[int] = []

    @property
    def bootstrap_servers(self) -> str:
        """What clients connect to, ``127.0.0.1:port``."""
        if not self._ports:
            raise LocalStackError("Kafka broker: not started")
        return f"{LOCALHOST}:{self._ports[0]}"

    def start(self) -> None:
        """Start the broker and return when it answers clients.

        Raises:
            LocalStackError: the broker runs already, or did not start; with the end of its log.
        """
        (self._open_work_dir() / "log4j2.properties").write_text(_LOG4J)
        self._ports = free_ports(2)
        properties = self._write_properties()
        command = [*self._java("format.log"), "kafka.tools.StorageTool", "format"]
        command += ["--cluster-id", _cluster_id(), "--config", properties]
        result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if result.returncode != 0:
            raise LocalStackError(f"Kafka broker: its log folder cannot be formatted: {result.stdout}{result.stderr}")
        self._start_broker(properties)

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Create a topic and return when every partition has a leader."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import NewTopic

        admin = self._admin()
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
        try:
            admin.create_topics([topic], operation_timeout=_TOPIC_S, request_timeout=_TOPIC_S)[name].result()
        except KafkaException as error:
            raise LocalStackError(f"topic {name!r} with {partitions} partitions, {config or {}}: {error}") from error
        give_up = time.monotonic() + _TOPIC_S
        while time.monotonic() < give_up:
            with contextlib.suppress(KafkaException):
                created = admin.list_topics(name, timeout=5).topics[name].partitions
                if len(created) == partitions and all(partition.leader >= 0 for partition in created.values()):
                    return
            time.sleep(0.05)
        raise LocalStackError(f"topic {name!r}: no leaders for its {partitions} partitions within {_TOPIC_S:g} s")

    def _write_properties(self) -> str:
        path = self.work_dir / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in self._properties().items()))
        return str(path)

    def _start_broker(self, properties: str) -> None:
        command = [*self._java("broker.log"), "kafka.Kafka", properties]
        self._process = Process.start(self.name, command, log_file=self.work_dir / "broker.out")
        self._process.log_file = self.work_dir / "broker.log"
        self._process.wait_for(self._answers, what="answering clients", deadline_s=_READY_S)

    def _properties(self) -> dict[str, Any]:
        client, controller = (f"{LOCALHOST}:{port}" for port in self._ports)
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{client}",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.work_dir / "data",
            # A misspelt topic is an error, not a new topic.
            "auto.create.topics.enable": "false",
            # One node holds the only copy of everything.
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # 50 each by default, which a broker for a few groups only spends start-up time on.
            "offsets.topic.num.partitions": "5",
            "transaction.state.log.num.partitions": "5",
            # The first consumer of a group does not wait for others.
            "group.initial.rebalance.delay.ms": "0",
            # Records may carry timestamps of years ago, which a retention time would delete.
            "log.retention.ms": "-1",
            # A pause of the machine would end a short session and so take every partition's only leader away.
            "broker.session.timeout.ms": "60000",
            "broker.heartbeat.interval.ms": "500",
            **self._config,
        }

    def _java(self, log: str) -> list[str]:
        """The command of a JVM with Kafka's classes, up to the name of its main class."""
        return [
            artifacts.java(),
            *self.jvm_options,
            # Quick to start: simple collector, archive of the JDK's classes.
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            "-Djava.awt.headless=true",
            f"-Dlog.file={self.work_dir / log}",
            f"-Djava.io.tmpdir={self.work_dir}",
            f"-Dlog4j2.configurationFile={self.work_dir / 'log4j2.properties'}",
            "-cp",
            ":".join(str(jar) for jar in artifacts.kafka_jars()),
        ]

    def _answers(self) -> bool:
        from confluent_kafka import KafkaException

        if not accepts_connections(self._ports[0]):
            return False
        try:
            return bool(self._admin().list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def _admin(self) -> Any:
        from confluent_kafka.admin import AdminClient

        # log_level 0: librdkafka would complain on stderr about a broker that is still starting.
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})


def _cluster_id() -> str:
    """A Kafka UUID: URL-safe base64 that does not start with a dash. Kafka's tool would parse that as a flag."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
