"""What a running job does, from two looks at Flink's REST API: ``python -m pipeline status`` shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runners.flink.rest import TERMINAL_STATES, FlinkRest
from transforms.adapters.telemetry.metric_names import with_dots
from transforms.adapters.telemetry.metrics import BOUNDS_MS

# Flink's REST API writes dots within a metric's name as underscores.
_MARK: Final = ".event_trigger_"
_WEBHOOK: Final = "action.webhook."
_TROUBLES: Final = ("retried", "delayed", "refused", "given_up", "dropped")


class NoJobError(RuntimeError):
    """There is no such job; names those that there are."""


@dataclass(frozen=True, slots=True)
class Look:
    """A job at one moment. ``ours`` are the pipeline's metrics, of each subtask that has told."""

    at_s: float
    job: Mapping[str, Any]
    restarts: int | None
    checkpoints: Mapping[str, Any]
    read: int
    lag: int
    ours: Mapping[str, list[int]] = field(default_factory=dict)

    def total(self, name: str) -> int:
        """A counter, over all subtasks."""
        return sum(self.ours.get(name, ()))

    def highest(self, name: str) -> int | None:
        """A gauge that is not to be added up."""
        return max(self.ours.get(name, ()), default=None)


def find_job(rest: FlinkRest, name: str) -> str:
    """The id of the newest job of a name, one that has not ended if there is any.

    Raises:
        NoJobError: there is none.
        LocalStackError: Flink does not answer.
    """
    jobs = rest.jobs()
    of_name = [job for job in jobs if job["name"] == name]
    if not of_name:
        others = ", ".join(sorted({repr(job["name"]) for job in jobs})) or "none at all"
        raise NoJobError(f"no job {name!r} at {rest.url}, there are {others}: see --job_name")
    newest = max(of_name, key=lambda job: (job["state"] not in TERMINAL_STATES, job["start-time"]))
    return str(newest["jid"])


def look(rest: FlinkRest, job_id: str, at_s: float) -> Look:
    """Look at a job.

    Raises:
        LocalStackError: Flink does not answer, or has forgotten the job.
    """
    job = rest.job(job_id)
    read = lag = 0
    ours: dict[str, list[int]] = {}
    for vertex in job["vertices"]:
        known = rest.vertex_metrics(job_id, vertex["id"])
        is_source = "ReadEvents" in vertex["name"]
        wanted = [name for name in known if _MARK in name or (is_source and (_is_read(name) or _is_lag(name)))]
        for name, value in rest.vertex_metrics(job_id, vertex["id"], wanted).items() if wanted else ():
            number = int(float(value)) if value else 0
            if _MARK in name:
                ours.setdefault(with_dots(name.partition(_MARK)[2]), []).append(number)
            elif _is_read(name):
                read += number
            else:
                lag += number
    restarts = rest.job_metrics(job_id, ["numRestarts"]).get("numRestarts")
    return Look(at_s, job, int(restarts) if restarts else None, rest.checkpoints(job_id), read, lag, ours)


def _is_read(name: str) -> bool:
    """``<subtask>.Source__….numRecordsIn``: the Kafka records, not the micro-batches made of them."""
    return ".Source__" in name and name.endswith(".numRecordsIn")


def _is_lag(name: str) -> bool:
    return name.endswith(".pendingRecords")


def status_of(before: Look, now: Look) -> dict[str, Any]:
    """What ``--json`` prints: rates are of the time between both looks, counts since the job last started.

    After a restart between them, whose counters begin at 0, rates are of what came since.
    """
    seconds = max(now.at_s - before.at_s, 0.001)

    def increase(name: str) -> int:
        # A counter that fell began anew.
        was, is_now = before.total(name), now.total(name)
        return is_now - was if is_now >= was else is_now

    def rate(name: str) -> float:
        return round(increase(name) / seconds, 1)

    def per_minute(name: str) -> float:
        return round(60 * increase(name) / seconds, 1)

    read = now.read - before.read if now.read >= before.read else now.read
    return {
        "job": {
            "id": now.job["jid"],
            "name": now.job["name"],
            "state": now.job["state"],
            "uptime_seconds": round(now.job["duration"] / 1000),
            "restarts": now.restarts,
        },
        "events": {
            "read_per_second": round(read / seconds, 1),
            "handled_per_second": rate("events_handled"),
            "lag": now.lag,
            "dead_letters": now.total("dead_letters"),
        },
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


def _sum(now: Look, ending: str) -> int:
    return sum(sum(values) for name, values in now.ours.items() if name.startswith("shard.") and name.endswith(ending))


def _percentiles(increase: Any) -> dict[str, float | None]:
    counts = [increase(f"latency_ms_le_{bound}") for bound in (*BOUNDS_MS, "inf")]
    return {"p50": quantile(counts, 0.5), "p99": quantile(counts, 0.99)}


def quantile(counts: list[int], share: float) -> float | None:
    """The value below which a share of a histogram lies, ms; ``counts`` go with ``BOUNDS_MS`` and infinity.

    Within a bucket values are taken to be spread evenly; beyond the last bound nothing more is known than that bound.
    """
    wanted = share * counts[-1]
    if counts[-1] <= 0:
        return None
    below, lower = 0, 0
    for bound, count in zip(BOUNDS_MS, counts, strict=False):
        if count >= wanted:
            return round(lower + (bound - lower) * (wanted - below) / max(count - below, 1), 1)
        below, lower = count, bound
    return float(BOUNDS_MS[-1])


def _checkpoints(now: Look) -> dict[str, Any]:
    latest = now.checkpoints["latest"]["completed"]
    age = None if latest is None else (now.job["now"] - latest["latest_ack_timestamp"]) / 1000
    return {
        "completed": now.checkpoints["counts"]["completed"],
        "failed": now.checkpoints["counts"]["failed"],
        "last_ms": None if latest is None else latest["end_to_end_duration"],
        "last_bytes": None if latest is None else latest["state_size"],
        "age_seconds": None if age is None else round(max(0.0, age), 1),
    }


def _rules(now: Look, per_minute: Any) -> list[dict[str, Any]]:
    names = sorted({name.split(".")[1] for name in now.ours if name.startswith("rule.")})
    return [
        {
            "name": name,
            "allowed_per_minute": per_minute(f"rule.{name}.allowed"),
            "fired_per_minute": per_minute(f"rule.{name}.fired"),
            **{what: now.total(f"rule.{name}.{what}") for what in ("allowed", "fired", "error", "quarantined")},
        }
        for name in names
    ]


def _destinations(now: Look, rate: Any) -> list[dict[str, Any]]:
    names = sorted({_destination(name) for name in now.ours if name.startswith(_WEBHOOK)})
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
            **{what: now.total(f"{_WEBHOOK}{name}.{what}") for what in _TROUBLES},
        }
        for name in names
    ]


def _destination(metric: str) -> str:
    return metric.removeprefix(_WEBHOOK).rpartition(".")[0]


def status_text(status: Mapping[str, Any]) -> str:
    """The same for people."""
    job, events, actions, users = (status[name] for name in ("job", "events", "actions", "users"))
    api, checkpoints, rules = (status[name] for name in ("user_api", "checkpoints", "rules"))
    latency = actions["latency_ms"]
    spent = "no action" if latency["p50"] is None else f"p50 {latency['p50']:,.0f} ms  p99 {latency['p99']:,.0f} ms"
    rows = [
        (
            "job",
            f"{job['name']}  {job['state']} for {_time(job['uptime_seconds'])}  {_shown(job['restarts'])} restarts",
        ),
        ("events", f"{events['read_per_second']:,.0f}/s read  {events['handled_per_second']:,.0f}/s handled"),
        ("lag", f"{events['lag']:,} records"),
        ("actions", f"{actions['per_second']:,.0f}/s  {spent}"),
        ("users", f"{users['in_state']:,} in the state  {users['parked']:,} wait for the user API"),
        ("user API", f"{api['calls_per_second']:,.0f}/s  {api['errors_per_second']:,.0f}/s fail{_open(api)}"),
        ("checkpoints", _checkpoint_text(checkpoints)),
        ("dead letters", f"{events['dead_letters']:,}"),
        ("rules", f"{_shown(rules['live'])} live, set {_shown(rules['set'])}"),
    ]
    blocks = ["\n".join(f"{label:<13} {value}" for label, value in rows)]
    if rules["each"]:
        columns = {"rule": "name", "fired/min": "fired_per_minute", "fired": "fired", "errors": "error"}
        blocks.append(_table(columns | {"quarantined": "quarantined"}, rules["each"]))
    if status["destinations"]:
        columns = {"destination": "name", "state": "state", "delivered/s": "delivered_per_second"}
        columns |= {what.replace("_", " "): what for what in ("delivered", *_TROUBLES)}
        blocks.append(_table(columns, status["destinations"]))
    return "\n\n".join(blocks) + "\n"


def _open(api: Mapping[str, Any]) -> str:
    return "  breaker open" if api["breaker_open"] else ""


def _checkpoint_text(checkpoints: Mapping[str, Any]) -> str:
    counted = f"{checkpoints['completed']:,} completed  {checkpoints['failed']:,} failed"
    if checkpoints["last_ms"] is None:
        return counted
    size, age = f"{checkpoints['last_bytes'] / 1e6:,.1f} MB", f"{checkpoints['age_seconds']:,.0f} s ago"
    return f"{counted}  last: {checkpoints['last_ms']:,} ms  {size}  {age}"


def _shown(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _time(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def _table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows under headings; ``columns`` are headings and keys. The first is text, the others end at the right."""
    cells = [list(columns), *([_cell(row[key]) for key in columns.values()] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    lines = []
    for first, *others in cells:
        lines.append("  ".join([first.ljust(widths[0]), *(cell.rjust(widths[n]) for n, cell in enumerate(others, 1))]))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}"
