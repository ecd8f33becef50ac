"""``event-trigger doctor``: prints a line for each check of what a launch needs, with advice if it fails."""

from __future__ import annotations

import itertools
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from pipeline.cli.doctor.checks import Doctor
from pipeline.cli.doctor.running import check_running_job
from pipeline.cli.parameters import Launch
from pipeline.console import out, out_json
from pipeline.errors import OptionError
from pipeline.launch.findings import FAIL, OK, WARN, Finding

Url = Annotated[str, Parameter(metavar="URL")]


def doctor(
    *,
    checkpoint_dir: Url | None = None,
    s3_endpoint: Url | None = None,
    running: bool = False,
    json: bool = False,
    options: Launch = Launch(),
) -> int:
    """Check what a launch depends on: this machine, Kafka and its topics, Flink, the user API, S3, clocks.

    Give it the options of the launch (`event-trigger run --help`); what no option names is not checked. With --running
    it also looks at the job that runs: each check is a section of docs/runbook.md.

    0: all is well, warnings perhaps; 1: something is not; 2: an option cannot be used.

    Args:
        checkpoint_dir: where checkpoints go; default: what the cluster's configuration says.
        s3_endpoint: S3 endpoint; default: the cluster's, else AWS.
        running: the job runs already: its slots are taken, and its health is checked, too.
        json: print JSON, one finding a line.
    """
    settings = options.settings_of_job()
    for name, value in (("checkpoint_dir", checkpoint_dir), ("s3_endpoint", s3_endpoint)):
        if value is not None and not urlsplit(value).netloc:
            raise OptionError(f"--{name} is {value!r}, allowed: a URL")
    outcomes = []
    if running and settings.flink_master is None:
        raise OptionError("--running needs --flink_master: give HOST:PORT of Flink's REST endpoint")
    findings = Doctor(settings, checkpoint_dir, s3_endpoint, running=running).run()
    for finding in itertools.chain(findings, check_running_job(settings) if running else ()):
        outcomes.append(finding.outcome)
        if json:
            out_json(_json(finding))
        else:
            out(_text_line(finding))
    failed, warned = outcomes.count(FAIL), outcomes.count(WARN)
    if not json:
        out(f"{outcomes.count(OK)} ok, {warned} to look at, {failed} failed")
    return 1 if failed else 0


def _json(finding: Finding) -> dict[str, str]:
    return {"check": finding.check, "outcome": finding.outcome, "said": finding.message, "advice": finding.advice}


def _text_line(finding: Finding) -> str:
    advice = f" -> {finding.advice}" if finding.advice else ""
    return f"{finding.outcome:<4}  {finding.check:<11}  {' '.join(finding.message.split())}{advice}"
