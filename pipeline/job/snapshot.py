"""A job at one moment, as Flink's REST API shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pipeline.job.kafka_look import KafkaLook
from runners.flink.rest import FlinkRest
from transforms.adapters.telemetry.metric_names import with_dots

# Flink's REST API writes dots within a metric's name as underscores.
_PREFIX: Final = ".event_trigger_"
UPTIME: Final = "uptime"  # of the job [ms], collected with its other metrics: their time
_RESTARTS: Final = "numRestarts"
# Flink renews metrics while they are read; values of two rounds are read again so many times.
_ROUNDS: Final = 3
_FLINK_REFRESH_MS: Final = 10_000  # Flink's default
_HEARTBEAT_MS: Final = 10_000  # Flink's default


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job at one moment.

    Attributes:
        at_s: monotonic time.
        job: Flink's answer about the job.
        restarts: since it was submitted.
        checkpoints: Flink's answer about checkpoints.
        read: records read from the events topic since the job last started.
        lag: records of the events topic that no user shard has taken yet; None if nobody can tell.
        metrics: the pipeline's own by name, a value for each subtask that has reported.
        metrics_at_ms: how long the job had run when Flink collected the metrics; None while it does not run.
        failures: why the job failed, the newest first.
        task_managers: Flink's answer about the TaskManagers.
        configuration: the JobManager's settings.
        wanted_slots: with how many subtasks it was submitted; None if it never runs with fewer, or may at any time.
        kafka: what Kafka says of the job's topics; None if nobody asked.
    """

    at_s: float
    job: Mapping[str, Any]
    restarts: int | None
    checkpoints: Mapping[str, Any]
    read: int
    lag: int | None
    metrics: Mapping[str, list[int]] = field(default_factory=dict)
    metrics_at_ms: int | None = None
    failures: Sequence[Mapping[str, Any]] = ()
    task_managers: Sequence[Mapping[str, Any]] = ()
    configuration: Mapping[str, str] = field(default_factory=dict)
    wanted_slots: int | None = None
    kafka: KafkaLook | None = None

    def total(self, name: str) -> int:
        """The sum of a counter over all subtasks."""
        return sum(self.metrics.get(name, ()))

    def highest(self, name: str) -> int | None:
        """The highest value of a gauge over all subtasks; None if none has reported it."""
        return max(self.metrics.get(name, ()), default=None)

    @property
    def writes_actions_topic(self) -> bool:
        """Whether Kafka actions have been written to ``actions_topic``."""
        return "action.kafka.default.emitted" in self.metrics

    @property
    def metrics_interval_s(self) -> float:
        """How often Flink renews metrics while they are read."""
        interval = self.configuration.get("metrics.fetcher.update-interval", "")
        return (int(interval) if interval.isdigit() else _FLINK_REFRESH_MS) / 1000

    @property
    def heartbeat_s(self) -> float:
        """How often TaskManagers are heard."""
        interval = self.configuration.get("heartbeat.interval", "")
        return (int(interval) if interval.isdigit() else _HEARTBEAT_MS) / 1000

    @property
    def unheard_s(self) -> float | None:
        """How long ago the most silent TaskManager was heard; None if there is none."""
        heard = [
            manager["timeSinceLastHeartbeat"] for manager in self.task_managers if "timeSinceLastHeartbeat" in manager
        ]
        return max(0.0, (self.job["now"] - min(heard)) / 1000) if heard else None

    @property
    def tasks_running(self) -> int:
        """How many steps of the job run with all their subtasks."""
        return sum(vertex["status"] == "RUNNING" for vertex in self.job.get("vertices", ()))

    @property
    def is_running(self) -> bool:
        """Whether the job and all its steps run; Flink calls a job RUNNING long before."""
        return self.job["state"] == "RUNNING" and self.tasks_running == len(self.job.get("vertices", ()))


def take_snapshot(rest: FlinkRest, job_id: str, at_s: float) -> JobSnapshot:
    """Read a job's state, checkpoints, failures, TaskManagers and metrics.

    Raises:
        LocalStackError: Flink does not answer, or has forgotten the job.
    """
    job = rest.job(job_id)
    uptime_ms, restarts = _uptime_and_restarts(rest, job_id)
    for _ in range(_ROUNDS):
        read = _Read(rest, job)
        before_ms, (uptime_ms, restarts) = uptime_ms, _uptime_and_restarts(rest, job_id)
        if before_ms == uptime_ms:
            break
    configuration = rest.configuration()
    is_adaptive = configuration.get("jobmanager.scheduler", "").lower() == "adaptive"
    # Of infra/terraform, where Auto Scaling decides how many slots there are.
    is_elastic = configuration.get("event-trigger.elastic", "").lower() == "true"
    snapshot = JobSnapshot(
        at_s,
        job,
        restarts,
        rest.checkpoints(job_id) | {"interval_ms": rest.checkpoint_config(job_id)["interval"]},
        read.records,
        None,
        read.metrics,
        uptime_ms,
        rest.failures(job_id),
        rest.task_managers(),
        configuration,
        rest.submitted_parallelism(job_id) if is_adaptive and not is_elastic else None,
    )
    return snapshot if not snapshot.is_running else _with_lag(snapshot, read)


def _uptime_and_restarts(rest: FlinkRest, job_id: str) -> tuple[int | None, int | None]:
    """How long the job had run when its metrics were collected [ms], and its restarts."""
    metrics = rest.job_metrics(job_id, [UPTIME, _RESTARTS])
    uptime, restarts = metrics.get(UPTIME), metrics.get(_RESTARTS)
    uptime_ms = int(uptime) if uptime else 0
    return uptime_ms if uptime_ms > 0 else None, int(restarts) if restarts else None


class _Read:
    """What all subtasks report: our metrics, and the source's records."""

    def __init__(self, rest: FlinkRest, job: Mapping[str, Any]) -> None:
        self.records = self.tombstones = 0
        self.metrics: dict[str, list[int]] = {}
        self.is_whole = True  # whether all subtasks of the source have reported
        for vertex in job["vertices"]:
            is_source = "ReadEvents" in vertex["name"]
            names = [
                name
                for name in rest.vertex_metrics(job["jid"], vertex["id"])
                if _PREFIX in name or (is_source and (is_records_read(name) or _is_tombstones(name)))
            ]
            readers = 0
            for name, value in rest.vertex_metrics(job["jid"], vertex["id"], names).items() if names else ():
                number = int(float(value)) if value else 0
                if _PREFIX in name:
                    self.metrics.setdefault(with_dots(name.partition(_PREFIX)[2]), []).append(number)
                elif is_records_read(name):
                    self.records += number
                    readers += 1
                else:
                    self.tombstones += number
            if is_source and readers < vertex.get("parallelism", readers):
                self.is_whole = False


def is_records_read(name: str) -> bool:
    """Whether a metric (``<subtask>.Source__….numRecordsIn``) counts Kafka records, not micro-batches of them."""
    return ".Source__" in name and name.endswith(".numRecordsIn")


def _is_tombstones(name: str) -> bool:
    return name.endswith(".tombstones")


def _with_lag(snapshot: JobSnapshot, read: _Read) -> JobSnapshot:
    """The snapshot with the lag: what partitions hold behind the source's position, and what is on its way from there.

    A partition whose broker does not answer has -1 unread: then nobody can tell.
    """
    unread = [
        values[-1]
        for name, values in read.metrics.items()
        if name.startswith("partition.") and name.endswith(".unread")
    ]
    if not unread or min(unread) < 0 or not read.is_whole:
        return snapshot
    on_the_way = max(0, read.records - read.tombstones - snapshot.total("events"))
    return replace(snapshot, lag=sum(unread) + on_the_way)


def is_unread_shown(name: str) -> bool:
    """Whether a metric, as Flink shows it, is how much of a partition is unread: ``…partition_3_unread``."""
    return f"{_PREFIX}partition_" in name and name.endswith("_unread")


def is_silent(unheard_s: float | None, heartbeat_s: float) -> bool:
    """Whether a TaskManager that was heard so long ago is probably dead, and what it reported last is old."""
    return unheard_s is not None and unheard_s > 2 * heartbeat_s + 1
