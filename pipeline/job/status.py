"""A job's status, from two snapshots: the facts that commands and pages show, and by which its health is judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from pipeline.job.snapshot import JobSnapshot
from pipeline.job.stream_time import stream_time
from runners.flink.redaction import without_secrets
from runners.flink.rest import root_cause
from transforms.adapters.telemetry.metrics import BOUNDS_MS

_WEBHOOK: Final = "action.webhook."
FAILURE_COUNTERS: Final = ("retried", "delayed", "refused", "given_up", "dropped")
RECENT_S: Final = 900  # failures of this time are counted
_NO_ANSWER: Final = 3  # a value of the metric time_hold


class _Increases:
    """What counters have added between two snapshots. A job that has started anew in between counts from 0."""

    def __init__(self, before: JobSnapshot, now: JobSnapshot) -> None:
        self._before, self._now = before, now
        self.seconds = max(now.at_s - before.at_s, 0.001)
        self._is_new_start = False
        if before.metrics_at_ms is not None and now.metrics_at_ms is not None:
            self._is_new_start = now.restarts != before.restarts or now.metrics_at_ms < before.metrics_at_ms
            since_ms = 0 if self._is_new_start else before.metrics_at_ms
            # Equal times: Flink has not renewed its metrics, and nothing has increased.
            self.seconds = (now.metrics_at_ms - since_ms) / 1000 or self.seconds

    def of(self, name: str) -> int:
        """The increase of a counter of ours over all subtasks."""
        return self._between(self._before.total(name), self._now.total(name))

    @property
    def read(self) -> int:
        return self._between(self._before.read, self._now.read)

    def _between(self, before: int, now: int) -> int:
        return now - before if now >= before and not self._is_new_start else now

    def rate(self, name: str) -> float:
        """The increase a second."""
        return round(self.of(name) / self.seconds, 1)

    def per_minute(self, name: str) -> float:
        """The increase a minute."""
        return round(60 * self.of(name) / self.seconds, 1)


def status_of(before: JobSnapshot, now: JobSnapshot) -> dict[str, Any]:
    """The document that ``status --json`` prints, with rates between two snapshots and counts since the last start."""
    increases = _Increases(before, now)
    rate = increases.rate
    return {
        "job": _job(now),
        "events": {
            "read_per_second": round(increases.read / increases.seconds, 1),
            "handled_per_second": rate("events_handled"),
            "lag": now.lag,
            "lag_before": before.lag,
            "taken": now.total("events"),
            "dead_letters": now.total("dead_letters"),
            "dead_letters_per_second": rate("dead_letters"),
            "taken_per_second": rate("events"),
        },
        "time": stream_time(now.metrics, now.job["now"]),
        "kafka": _kafka(now),
        "actions": {"per_second": rate("actions"), "latency_ms": _percentiles(increases.of)},
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
        "rules": {
            "set": now.highest("rule_set"),
            "live": now.highest("rules_live"),
            "each": _rules(now, increases.per_minute),
        },
        "destinations": _destinations(now, rate),
        "ledger": {
            "shards_unguarded": now.highest("ledger_shards_unguarded"),
            "claims_lost_per_second": rate("ledger_claims_lost"),
        },
        "refolds_per_second": rate("refolds"),
        "worker_bytes": now.highest("worker_rss_bytes"),
    }


# Parts of the document


def _job(now: JobSnapshot) -> dict[str, Any]:
    job, now_ms = now.job, now.job["now"]
    vertices = job.get("vertices", ())
    recent = [failure for failure in now.failures if now_ms - failure["timestamp"] < 1000 * RECENT_S]
    newest = now.failures[0] if now.failures else None
    return {
        "id": job["jid"],
        "name": job["name"],
        "state": job["state"],
        "uptime_seconds": round(job["duration"] / 1000),
        "restarts": now.restarts,
        "counted_since_ms": None if now.metrics_at_ms is None else now_ms - now.metrics_at_ms,
        "steps": len(vertices),
        "steps_running": now.tasks_running,
        "task_managers": _task_managers(now),
        "recent_failures": len(recent),
        "failure": None
        if newest is None
        else {
            "seconds_ago": _seconds_ago(newest["timestamp"], now_ms),
            "cause": without_secrets(root_cause(newest["stacktrace"])),
        },
    }


def _task_managers(now: JobSnapshot) -> dict[str, Any]:
    """How many TaskManagers and slots there are and the job wants, and how long ago the most silent one was heard."""
    subtasks = max((vertex.get("parallelism", 1) for vertex in now.job.get("vertices", ())), default=1)
    wanted = max(subtasks, now.wanted_slots or 0)
    slots = [manager["slotsNumber"] for manager in now.task_managers if manager.get("slotsNumber")]
    configured = now.configuration.get("taskmanager.numberOfTaskSlots", "")
    each = max(slots, default=int(configured) if configured.isdigit() else 0)
    return {
        "registered": len(now.task_managers),
        "needed": math.ceil(wanted / each) if each else None,
        "slots": subtasks,
        "slots_wanted": wanted,
        "seen_seconds_ago": None if now.unheard_s is None else round(now.unheard_s, 1),
        "heartbeat_seconds": now.heartbeat_s,
    }


def _kafka(now: JobSnapshot) -> dict[str, Any]:
    look = now.kafka
    holds = {name.split(".")[1]: max(values) for name, values in now.metrics.items() if name.endswith(".time_hold")}
    return {
        "trouble": None if look is None else look.trouble,
        "missing": {} if look is None else dict(look.missing),
        "hints": {} if look is None else dict(look.hints),
        "partitions": len(holds),
        "silent_partitions": sorted(int(partition) for partition, hold in holds.items() if hold == _NO_ANSWER),
    }


def _seconds_ago(at_ms: int, now_ms: int) -> float:
    return round(max(0, now_ms - at_ms) / 1000, 1)


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
    latest, failed = now.checkpoints["latest"]["completed"], now.checkpoints["latest"].get("failed")
    at_ms = 0 if latest is None else latest["latest_ack_timestamp"]
    failures = 0
    for checkpoint in now.checkpoints.get("history", ()):
        if checkpoint["status"] == "COMPLETED":
            break
        failures += checkpoint["status"] == "FAILED"
    interval_ms = now.checkpoints.get("interval_ms")
    failed_at_ms = max((failure["timestamp"] for failure in now.failures), default=0)
    return {
        "completed": now.checkpoints["counts"]["completed"],
        "failed": now.checkpoints["counts"]["failed"],
        "last_ms": None if latest is None else latest["end_to_end_duration"],
        "last_bytes": None if latest is None else latest["state_size"],
        "age_seconds": None if latest is None else _seconds_ago(at_ms, now.job["now"]),
        "failed_since": failures,
        "failure": None if failed is None or not failures else without_secrets(failed.get("failure_message") or ""),
        "interval_seconds": None if interval_ms is None else interval_ms / 1000,
        "since_failure": latest is not None and at_ms > failed_at_ms,
    }


def _rules(now: JobSnapshot, per_minute: Callable[[str], float]) -> list[dict[str, Any]]:
    names = sorted({name.split(".")[1] for name in now.metrics if name.startswith("rule.")})
    return [
        {
            "name": name,
            "allowed_per_minute": per_minute(f"rule.{name}.allowed"),
            "fired_per_minute": per_minute(f"rule.{name}.fired"),
            "evaluated_per_minute": per_minute(f"rule.{name}.evaluated"),
            "errors_per_minute": per_minute(f"rule.{name}.error"),
            "quarantined_per_minute": per_minute(f"rule.{name}.quarantined"),
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
            "state": _destination_state(now, name),
            "delivered_per_second": rate(f"{_WEBHOOK}{name}.delivered"),
            "delivered": now.total(f"{_WEBHOOK}{name}.delivered"),
            **{counter: now.total(f"{_WEBHOOK}{name}.{counter}") for counter in FAILURE_COUNTERS},
        }
        for name in names
    ]


def _destination(metric: str) -> str:
    return metric.removeprefix(_WEBHOOK).rpartition(".")[0]


def _destination_state(now: JobSnapshot, name: str) -> str:
    disabled, failing = (now.highest(f"destination.{name}.{gauge}") for gauge in ("disabled", "breaker_open"))
    if disabled is None and failing is None:
        return "unknown"  # workers show both of every destination that they know
    return "disabled" if disabled else "failing" if failing else "ok"
