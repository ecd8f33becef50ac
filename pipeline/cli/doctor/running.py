"""The checks of ``doctor --running``: those of the job's verdict, each named as its section of the runbook."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from pipeline.job.health import DOWN, results_of
from pipeline.launch.findings import FAIL, OK, WARN, Finding
from pipeline.launch.looking import looks_at
from pipeline.launch.options import Settings

_EVERY_S: Final = 2.0
_LONGEST_S: Final = 30.0


def check_running_job(settings: Settings) -> Iterator[Finding]:
    """Look at the job until its rates are known; yield what each check found."""
    looks = looks_at(settings, _EVERY_S)
    looks.take()
    give_up_s = time.monotonic() + _LONGEST_S
    while not looks.is_settled and time.monotonic() < give_up_s:
        time.sleep(max(_EVERY_S, looks.metrics_interval_s))
        looks.take()
    for check, found in results_of(looks.facts):
        if found is None:
            yield Finding(check.section, OK, check.well)
        else:
            advice = f"{found.next}; docs/runbook.md#{check.section.lower()}"
            yield Finding(check.section, FAIL if found.state == DOWN else WARN, found.why, advice)
