"""``python -m pipeline status``: prints a running job's status again and again until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Final

from pipeline.cli.command_parser import CommandParser
from pipeline.cli.status.text import status_text
from pipeline.errors import OptionError
from pipeline.job.jobs import NoJobError, newest_job
from pipeline.job.status import JobSnapshot, status_of, take_snapshot
from pipeline.launch.options import Settings, parse_rules_optional
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest

PROGRAM: Final = "python -m pipeline status"

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
    parser = CommandParser(
        PROGRAM,
        "--flink_master=HOST:PORT [--job_name=NAME] [--once | --json] [--every_seconds=NUMBER]",
        _DESCRIPTION,
    )
    parser.add_argument("--once", action="store_true", help="show it once and end")
    parser.add_argument("--json", action="store_true", help="print one JSON document and end")
    parser.add_argument(
        "--every_seconds",
        type=float,
        metavar="NUMBER",
        help=f"time between two looks (default: {_SHORTEST_INTERVAL_S:g}, or how often the cluster renews its metrics)",
    )
    arguments, rest = parser.parse_known_args(argv)
    try:
        settings = parse_rules_optional(rest, PROGRAM)
        if settings.flink_master is None:
            raise OptionError("--flink_master is missing: give HOST:PORT of Flink's REST endpoint")
        if arguments.every_seconds is not None and not 0.1 <= arguments.every_seconds <= 3600:
            raise OptionError(f"--every_seconds is {arguments.every_seconds}, allowed: 0.1 to 3600")
    except OptionError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    try:
        return _show(settings, arguments)
    except (LocalStackError, NoJobError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0


def _show(settings: Settings, arguments: argparse.Namespace) -> int:
    rest = FlinkRest(f"http://{settings.flink_master}")
    job_id = newest_job(rest, settings.job_name)
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
            return 0
        sys.stdout.write((_CLEAR if sys.stdout.isatty() and not arguments.once else "") + status_text(status))
        sys.stdout.flush()
        if arguments.once:
            return 0
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
