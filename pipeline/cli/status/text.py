"""A job's status as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.cli.tables import table_lines
from pipeline.job.status import FAILURE_COUNTERS


def status_text(status: Mapping[str, Any]) -> str:
    """The status document as tables."""
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
        columns |= {counter.replace("_", " "): counter for counter in ("delivered", *FAILURE_COUNTERS)}
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
    """Rows under headings; ``columns`` maps headings to keys. The first column is text, the others are numbers."""
    return "\n".join(table_lines([list(columns), *([_cell(row[key]) for key in columns.values()] for row in rows)]))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,}"
