"""``python -m pipeline doctor``: prints a line for each check of what a launch needs, with advice if it fails."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from pipeline.cli.command_line import CommandParser
from pipeline.cli.doctor.checks import Doctor
from pipeline.console import one_line
from pipeline.errors import OptionError
from pipeline.launch.findings import FAIL, OK, WARN, Finding
from pipeline.launch.options import Settings

_DESCRIPTION: Final = """\
Checks what a launch depends on: this machine, Kafka and its topics, Flink, the user API, S3, clocks.
Give it the options of the launch; what no option names is not checked. 0: all is well, warnings perhaps; 1: something
is not; 2: an option cannot be used."""


def main(argv: Sequence[str]) -> int:
    """Run every check; the exit code."""
    usage = "[OPTIONS OF THE LAUNCH] [--checkpoint_dir=s3://…] [--s3_endpoint=URL] [--json]"
    parser = CommandParser("doctor", usage, _DESCRIPTION)
    parser.add_argument(
        "--checkpoint_dir", metavar="URL", help="where checkpoints go (default: what the cluster's configuration says)"
    )
    parser.add_argument("--s3_endpoint", metavar="URL", help="S3 endpoint (default: the cluster's, else AWS)")
    parser.add_argument("--json", action="store_true", help="print JSON, one finding a line")
    return parser.run_with_launch_options(_check, argv)


def _check(arguments: argparse.Namespace, settings: Settings) -> int:
    for name in ("checkpoint_dir", "s3_endpoint"):
        if (value := getattr(arguments, name)) is not None and not urlsplit(value).netloc:
            raise OptionError(f"--{name} is {value!r}, allowed: a URL")
    return _print_findings(Doctor(settings, arguments.checkpoint_dir, arguments.s3_endpoint), arguments.json)


def _print_findings(doctor: Doctor, as_json: bool) -> int:
    outcomes = []
    for finding in doctor.run():
        outcomes.append(finding.outcome)
        sys.stdout.write(f"{_json_line(finding) if as_json else _text_line(finding)}\n")
        sys.stdout.flush()
    failed, warned = outcomes.count(FAIL), outcomes.count(WARN)
    if not as_json:
        sys.stdout.write(f"{outcomes.count(OK)} ok, {warned} to look at, {failed} failed\n")
    return 1 if failed else 0


def _json_line(finding: Finding) -> str:
    fields = {"check": finding.check, "outcome": finding.outcome, "said": finding.message, "advice": finding.advice}
    return json.dumps(fields)


def _text_line(finding: Finding) -> str:
    advice = f" -> {finding.advice}" if finding.advice else ""
    return one_line(f"{finding.outcome:<4}  {finding.check:<11}  {' '.join(finding.message.split())}{advice}")
