"""A Kafka broker that tests kill and start again on its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runners.flink.errors import LocalStackError
from runners.flink.local.broker import LocalKafka
from runners.flink.local.processes import Process


class KafkaBroker(LocalKafka):
    """A broker that can be killed and restarted.

    ``config`` adds to or replaces the broker's properties, ``heap_mb`` is the JVM's heap. A ``long_lived`` broker
    spends its first minutes compiling itself, after which a record costs half as much: for benchmarks.
    """

    def __init__(
        self, *, config: Mapping[str, str] | None = None, heap_mb: int = 512, long_lived: bool = False
    ) -> None:
        super().__init__(config=config)
        heap = (f"-Xmx{heap_mb}m", f"-Xms{min(heap_mb, 128)}m")
        self.jvm_options = heap if long_lived else (*heap, "-XX:TieredStopAtLevel=1")

    @property
    def pid(self) -> int:
        """The broker's process id."""
        return self._running().pid

    def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        admin = self._admin()  # a client that is garbage ends its calls
        admin.delete_topics([name], operation_timeout=30)[name].result()

    def kill(self) -> None:
        """``kill -9`` the broker; its data stay."""
        self._running().kill()

    def restart(self) -> None:
        """Start the broker again on the same ports and data, after ``kill`` or instead of a running one."""
        if self._process is not None:
            self._process.stop()
        self._start_broker(self._write_properties())

    def _properties(self) -> dict[str, Any]:
        properties, data = super()._properties(), self.work_dir / "data"
        if (data / "__cluster_metadata-0").is_dir() and not (data / ".kafka_cleanshutdown").is_file():
            # A broker that was killed waits at its next start until its old session has ended.
            properties["broker.session.timeout.ms"] = "3000"
        return properties

    def _running(self) -> Process:
        if self._process is None or not self._process.running:
            raise LocalStackError("Kafka broker: is not running")
        return self._process
