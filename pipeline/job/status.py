"""What a running job does: two snapshots from Flink's REST API, and the status that they amount to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.job.stream_time import stream_time
from runners.flink.rest import FlinkRest
from transforms.adapters.telemetry.metric_names import with_dots
from transforms.adapters.telemetry.metrics import BOUNDS_MS

# Flink's REST API writes dots within a metric's name as underscores.
_PREFIX: Final = ".event_trigger_"
_WEBHOOK: Final = "action.webhook."
FAILURE_COUNTERS: Final = ("retried", "delayed", "refused", "given_up", "dropped")


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job at one moment.

    ``job`` and ``checkpoints`` are Flink's answers, ``read`` and ``lag`` records of the events topic, ``metrics`` the
    pipeline's own by name, a value for each subtask that has reported. ``at_s`` is a monotonic time.
    """

    at_s: float
    job: Mapping[str, Any]
    restarts: int | None
    checkpoints: Mapping[str, Any]
    read: int
    lag: int
    metrics: Mapping[str, list[int]] = field(default_factory=dict)

    def total(self, name: str) -> int:
        """The sum of a counter over all subtasks."""
        return sum(self.metrics.get(name, ()))

    def highest(self, name: str) -> int | None:
        """The highest value of a gauge over all subtasks; None if none has reported it."""
        return max(self.metrics.get(name, ()), default=None)


def take_snapshot(rest: FlinkRest, job_id: str, at_s: float) -> JobSnapshot:
    """Read a job's state, checkpoints and metrics.

    Raises:
        LocalStackError: Flink does not answer, or has forgotten the job.
    """
    job = rest.job(job_id)
    read = lag = 0
    metrics: dict[str, list[int]] = {}
    for vertex in job["vertices"]:
        is_source = "ReadEvents" in vertex["name"]
        names = [
            name
            for name in rest.vertex_metrics(job_id, vertex["id"])
            if _PREFIX in name or (is_source and (is_records_read(name) or is_lag(name)))
        ]
        for name, value in rest.vertex_metrics(job_id, vertex["id"], names).items() if names else ():
            number = int(float(value)) if value else 0
            if _PREFIX in name:
                metrics.setdefault(with_dots(name.partition(_PREFIX)[2]), []).append(number)
            elif is_records_read(name):
                read += number
            else:
                lag += number
    restarts = rest.job_metrics(job_id, ["numRestarts"]).get("numRestarts")
    return JobSnapshot(at_s, job, int(restarts) if restarts else None, rest.checkpoints(job_id), read, lag, metrics)


def is_records_read(name: str) -> bool:
    """Whether a metric (``<subtask>.Source__….numRecordsIn``) counts Kafka records, not micro-batches of them."""
    return ".Source__" in name and name.endswith(".numRecordsIn")


def is_lag(name: str) -> bool:
    """Whether a metric is the number of Kafka records that a subtask has still to read."""
    return name.endswith(".pendingRecords")


def status_of(before: JobSnapshot, now: JobSnapshot) -> dict[str, Any]:
    """The document that ``status --json`` prints, with rates between two snapshots and counts since the last start.

    If the job restarted between the snapshots, its counters began at 0 and the rates count only what came after that.
    """
    seconds = max(now.at_s - before.at_s, 0.001)

    def increase(name: str) -> int:
        return _increase(before.total(name), now.total(name))

    def rate(name: str) -> float:
        return round(increase(name) / seconds, 1)

    def per_minute(name: str) -> float:
        return round(60 * increase(name) / seconds, 1)

    return {
        "job": {
            "id": now.job["jid"],
            "name": now.job["name"],
            "state": now.job["state"],
            "uptime_seconds": round(now.job["duration"] / 1000),
            "restarts": now.restarts,
        },
        "events": {
            "read_per_second": round(_increase(before.read, now.read) / seconds, 1),
            "handled_per_second": rate("events_handled"),
            "lag": now.lag,
            "dead_letters": now.total("dead_letters"),
        },
        "time": stream_time(now.metrics, now.job["now"]),
        "actions": {"per_second": rate("actions"), "latency_ms": _percentiles(increase)},
        "users": {
            "in_state": _sum(now, ".users"),
            "parked": _sum(now, ".parked_users"),
            "hits": now.total("state_hits"),
            "misses": now.total("state_misses"),
        },
        "user_api": {
            "calls_per_second": rate("user_api_calls"),
            "errors_per_second": rate("user_api_call_errors"),
            "breaker_open": bool(now.highest("user_api_breaker_open")),
        },
        "checkpoints": _checkpoints(now),
        "rules": {"set": now.highest("rule_set"), "live": now.highest("rules_live"), "each": _rules(now, per_minute)},
        "destinations": _destinations(now, rate),
        "worker_bytes": now.highest("worker_rss_bytes"),
    }


def _increase(before: int, now: int) -> int:
    """A counter that is lower than before began at 0 again."""
    return now - before if now >= before else now


def _sum(now: JobSnapshot, ending: str) -> int:
    return sum(
        sum(values) for name, values in now.metrics.items() if name.startswith("shard.") and name.endswith(ending)
    )


def _percentiles(increase: Callable[[str], int]) -> dict[str, float | None]:
    counts = [increase(f"latency_ms_le_{bound}") for bound in (*BOUNDS_MS, "inf")]
    return {"p50": quantile(counts, 0.5), "p99": quantile(counts, 0.99)}


def quantile(counts: list[int], share: float) -> float | None:
    """A quantile of a histogram [ms], or None if it is empty.

    Values are taken to be spread evenly within a bucket. A quantile beyond the last bound is that bound.

    Args:
        counts: cumulative, one for each of ``BOUNDS_MS`` and one for all values.
        share: which quantile, 0 to 1.
    """
    rank = share * counts[-1]
    if counts[-1] <= 0:
        return None
    below, lower = 0, 0
    for bound, count in zip(BOUNDS_MS, counts, strict=False):
        if count >= rank:
            return round(lower + (bound - lower) * (rank - below) / max(count - below, 1), 1)
        below, lower = count, bound
    return float(BOUNDS_MS[-1])


def _checkpoints(now: JobSnapshot) -> dict[str, Any]:
    latest = now.checkpoints["latest"]["completed"]
    age = None if latest is None else (now.job["now"] - latest["latest_ack_timestamp"]) / 1000
    return {
        "completed": now.checkpoints["counts"]["completed"],
        "failed": now.checkpoints["counts"]["failed"],
        "last_ms": None if latest is None else latest["end_to_end_duration"],
        "last_bytes": None if latest is None else latest["state_size"],
        "age_seconds": None if age is None else round(max(0.0, age), 1),
    }


def _rules(now: JobSnapshot, per_minute: Callable[[str], float]) -> list[dict[str, Any]]:
    names = sorted({name.split(".")[1] for name in now.metrics if name.startswith("rule.")})
    return [
        {
            "name": name,
            "allowed_per_minute": per_minute(f"rule.{name}.allowed"),
            "fired_per_minute": per_minute(f"rule.{name}.fired"),
            **{
                counter: now.total(f"rule.{name}.{counter}") for counter in ("allowed", "fired", "error", "quarantined")
            },
        }
        for name in names
    ]


def _destinations(now: JobSnapshot, rate: Callable[[str], float]) -> list[dict[str, Any]]:
    names = sorted({_destination(name) for name in now.metrics if name.startswith(_WEBHOOK)})
    return [
        {
            "name": name,
            "state": "disabled"
            if now.highest(f"destination.{name}.disabled")
            else "failing"
            if now.highest(f"destination.{name}.breaker_open")
            else "ok",
            "delivered_per_second": rate(f"{_WEBHOOK}{name}.delivered"),
            "delivered": now.total(f"{_WEBHOOK}{name}.delivered"),
            **{counter: now.total(f"{_WEBHOOK}{name}.{counter}") for counter in FAILURE_COUNTERS},
        }
        for name in names
    ]


def _destination(metric: str) -> str:
    return metric.removeprefix(_WEBHOOK).rpartition(".")[0]
