"""``python -m pipeline status``: prints a running job's status again and again until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline.cli.command_line import CommandParser, rest_client
from pipeline.cli.tables import table_lines
from pipeline.console import lines_of
from pipeline.errors import OptionError
from pipeline.job.jobs import newest_job
from pipeline.job.status import FAILURE_COUNTERS, JobSnapshot, status_of, take_snapshot
from pipeline.job.stream_time import time_lines
from pipeline.launch.options import Settings
from runners.flink.rest import FlinkRest

_DESCRIPTION: Final = """\
Shows what a job does: throughput, lag, latency, checkpoints, rules, destinations. Counts are since its last start,
rates of the last seconds. Of the options of the launch --flink_master is needed, --job_name if it was given there.
0: shown; 1: no such job, or Flink does not answer; 2: an option cannot be used."""

_SHORTEST_INTERVAL_S: Final = 2.0
_FLINK_REFRESH_MS: Final = 10_000
_FIRST_METRICS_S: Final = 20.0
_CLEAR: Final = "\x1b[H\x1b[J"


def main(argv: Sequence[str]) -> int:
    """Show the status; the exit code."""
    usage = "--flink_master=HOST:PORT [--job_name=NAME] [--once | --json] [--every_seconds=NUMBER]"
    parser = CommandParser("status", usage, _DESCRIPTION)
    parser.add_argument("--once", action="store_true", help="show it once and end")
    parser.add_argument("--json", action="store_true", help="print one JSON document and end")
    parser.add_argument(
        "--every_seconds",
        type=float,
        metavar="NUMBER",
        help=f"time between two looks (default: {_SHORTEST_INTERVAL_S:g}, or how often the cluster renews its metrics)",
    )
    return parser.run_with_launch_options(_status, argv)


def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    client = rest_client(settings.flink_master)
    if arguments.every_seconds is not None and not 0.1 <= arguments.every_seconds <= 3600:
        raise OptionError(f"--every_seconds is {arguments.every_seconds}, allowed: 0.1 to 3600")
    with contextlib.suppress(KeyboardInterrupt):
        _show(client, newest_job(client, settings.job_name), arguments)
    return 0


def _show(rest: FlinkRest, job_id: str, arguments: argparse.Namespace) -> None:
    every_s = arguments.every_seconds
    if every_s is None:
        # Between refreshes Flink reports the same values, so that shorter intervals would show wrong rates.
        every_s = max(
            _SHORTEST_INTERVAL_S, rest.setting_ms("metrics.fetcher.update-interval", _FLINK_REFRESH_MS) / 1000
        )
    before = _first_snapshot(rest, job_id)
    while True:
        time.sleep(every_s)
        now = take_snapshot(rest, job_id, time.monotonic())
        status = status_of(before, now)
        before = now
        if arguments.json:
            sys.stdout.write(f"{json.dumps(status)}\n")
            return
        sys.stdout.write((_CLEAR if sys.stdout.isatty() and not arguments.once else "") + lines_of(status_text(status)))
        sys.stdout.flush()
        if arguments.once:
            return
        if not sys.stdout.isatty():
            sys.stdout.write("\n")


def _first_snapshot(rest: FlinkRest, job_id: str) -> JobSnapshot:
    """The first snapshot with metrics: Flink fetches them only when they are requested, so early answers lack them."""
    give_up_s = time.monotonic() + _FIRST_METRICS_S
    while True:
        snapshot = take_snapshot(rest, job_id, time.monotonic())
        if snapshot.metrics or snapshot.job["state"] != "RUNNING" or time.monotonic() > give_up_s:
            return snapshot
        time.sleep(0.5)


# The status as text


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
        ("events", f"{events['read_per_second']:,.0f}/s read  {events['handled_per_second']:,.0f}/s handled"),
        ("lag", f"{events['lag']:,} records"),
        *(("time", line) for line in time_lines(status["time"])),
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
