"""``event-trigger status``: prints a running job's health and status again and again until Ctrl-C."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pipeline.cli.parameters import Launch, Number, rest_client
from pipeline.console import lines_of, out, out_json, table_lines
from pipeline.errors import OptionError
from pipeline.job.health import Verdict
from pipeline.job.looks import Looks
from pipeline.job.status import FAILURE_COUNTERS
from pipeline.job.stream_time import time_lines, utc
from pipeline.launch.looking import looks_at

_SHORTEST_INTERVAL_S: Final = 2.0
# A status that is printed once waits so long for metrics that Flink renews, and for records that wait to be taken.
_FIRST_METRICS_S: Final = 20.0
_CLEAR: Final = "\x1b[H\x1b[J"


def status(
    *, once: bool = False, json: bool = False, every_seconds: Number | None = None, options: Launch = Launch()
) -> int:
    """Show whether a job is healthy and why not, and what it does: throughput, lag, latency, rules, destinations.

    Counts are since its last start, rates of the last minute. Of the options of the launch --flink_master is needed,
    --job_name if it was given there; with --bootstrap_servers it also sees whether the job's topics are there.

    0: HEALTHY; 1: DEGRADED; 2: DOWN (Flink or the job is not there), or an option cannot be used.

    Args:
        once: show it once and end.
        json: print one JSON document and end.
        every_seconds: time between two looks; default: 2, or how often the cluster renews its metrics.
    """
    settings = options.settings_of_job()
    rest_client(settings.flink_master)  # refuses a missing or wrong address
    if every_seconds is not None and not 0.1 <= every_seconds <= 3600:
        raise OptionError(f"--every_seconds is {every_seconds}, allowed: 0.1 to 3600")
    looks = looks_at(settings, every_seconds or _SHORTEST_INTERVAL_S)
    looks.take()
    with contextlib.suppress(KeyboardInterrupt):
        _look_until_known(looks, every_seconds)
        if json:
            out_json(looks.document())
        elif once or looks.status is None:
            _print(looks)
        else:
            _show(looks, every_seconds)
    return looks.verdict.exit_code


def _look_until_known(looks: Looks, every_s: float | None) -> None:
    """Look again until rates are known, and whether waiting records are taken."""
    give_up_s = time.monotonic() + _FIRST_METRICS_S
    while time.monotonic() < give_up_s and not looks.is_settled:
        time.sleep(_pause_s(looks, every_s))
        looks.take()


def _pause_s(looks: Looks, every_s: float | None) -> float:
    # Between refreshes Flink reports the same values.
    return every_s if every_s is not None else max(_SHORTEST_INTERVAL_S, looks.metrics_interval_s)


def _show(looks: Looks, every_s: float | None) -> None:
    while True:
        sys.stdout.write(_CLEAR if sys.stdout.isatty() else "")
        _print(looks)
        if not sys.stdout.isatty():
            sys.stdout.write("\n")
        time.sleep(_pause_s(looks, every_s))
        looks.take()


def _print(looks: Looks) -> None:
    status, seen_s = looks.status, looks.seen_s
    out(*verdict_lines(looks.verdict))
    if looks.silence is not None and status is not None:
        out(f"{'seen':<13} {seen_s or 0:,.0f} s ago: all that follows is as old")
    if status is not None and looks.no_job is None:
        sys.stdout.write("\n" + lines_of(status_text(status)))
        sys.stdout.flush()


# The status as text


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict, why, what to do, and where it is written about."""
    lines = [f"{verdict.state:<13} {verdict.why}".rstrip()]
    if verdict.next:
        lines.append(f"{'next':<13} {verdict.next}")
    if verdict.section:
        lines.append(f"{'see':<13} docs/runbook.md#{verdict.section.lower()}")
    return lines


def status_text(status: Mapping[str, Any]) -> str:
    """The status document as tables."""
    job, events, actions, users = (status[name] for name in ("job", "events", "actions", "users"))
    api, checkpoints, rules = (status[name] for name in ("user_api", "checkpoints", "rules"))
    latency = actions["latency_ms"]
    spent = "no action" if latency["p50"] is None else f"p50 {latency['p50']:,.0f} ms  p99 {latency['p99']:,.0f} ms"
    breaker = "  breaker open" if api["breaker_open"] else ""
    rows = [
        (
            "job",
            f"{job['name']}  {job['state']} for {_time(job['uptime_seconds'])}  {_shown(job['restarts'])} restarts",
        ),
        *(("", line) for line in _job_lines(job)),
        ("events", f"{events['read_per_second']:,.0f}/s read  {events['handled_per_second']:,.0f}/s handled"),
        ("lag", "unknown" if events["lag"] is None else f"{events['lag']:,} records"),
        *(("time", line) for line in time_lines(status["time"])),
        *(("Kafka", f"does not answer from here: {trouble}") for trouble in (status["kafka"]["trouble"],) if trouble),
        ("actions", f"{actions['per_second']:,.0f}/s  {spent}"),
        ("users", f"{users['in_state']:,} in the state  {users['parked']:,} wait for the user API"),
        ("user API", f"{api['calls_per_second']:,.0f}/s  {api['errors_per_second']:,.0f}/s fail{breaker}"),
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


def _job_lines(job: Mapping[str, Any]) -> Iterable[str]:
    """What runs of a job that does not run whole, why it failed last, and since when its counts are."""
    managers = job["task_managers"]
    if job["steps_running"] < job["steps"]:
        needed = _shown(managers["needed"])
        yield f"{job['steps_running']} of {job['steps']} steps run, {managers['registered']} of {needed} TaskManagers"
    if job["failure"] is not None:
        yield f"failed {job['failure']['seconds_ago']:,.0f} s ago: {' '.join(job['failure']['cause'].split())}"
    if job["counted_since_ms"] is not None:
        yield f"counts since {utc(job['counted_since_ms'])}"


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
