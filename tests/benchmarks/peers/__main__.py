"""This pipeline beside its peers, on one broker. ``make bench``.

Rows and parts that are measured already are kept in the output folder and skipped, so a run that was stopped goes on
where it was. Everything shares the machine, so ratios of one run say more than its absolute numbers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.benchmarks.peers import report
from tests.benchmarks.peers.analysis import best_round
from tests.benchmarks.peers.measure import Backlogs, Plan, Start, drain, plan_figures, under_load, warm_up
from tests.benchmarks.peers.stack import Stack
from tests.benchmarks.peers.systems import ROWS

DRAINS: Final = ("zipf", "uniform", "misses")
PARTS: Final = (*DRAINS, "load")
# What a part takes beside what the plan says: start, submission, everybody's first event, stop.
_FIXED_S: Final = 45.0

QUICK: Final = {
    "users": 50, "events": 60_000, "miss_events": 4000, "warm_s": 0.0, "settle_s": 2.0, "window_s": 5.0,
    "rates": (200,), "rate_s": 10.0, "checkpoint_s": 5.0, "recovery_rate": 200, "recovery_s": 20.0,
}  # fmt: skip


class Run(NamedTuple):
    """One measurement; ``round`` counts from 1."""

    row: str
    part: str
    round: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print and plot all there is; 1 if a part failed."""
    given = _parser().parse_args(argv)
    plan = _plan(given)
    folder: Path = given.out
    if not given.report_only:
        folder.mkdir(parents=True, exist_ok=True)
        _same_plan(folder, plan)
    wanted = [
        measurement
        for measurement in _wanted(given.rows, given.parts, given.rounds)
        if not _file(folder, *measurement).exists()
    ]
    if wanted and not given.report_only:
        _say(f"{len(wanted)} measurements, about {_minutes(wanted, plan):.0f} minutes; results in {folder}")
        failed = _measure(wanted, plan, folder)
    else:
        failed = 0
    report.write(folder, _results(folder), given.plot)
    return 1 if failed else 0


def _measure(wanted: Sequence[Run], plan: Plan, folder: Path) -> int:
    """Measure; how many failed."""
    for row in dict.fromkeys(run.row for run in wanted):
        ROWS[row].prepare()
    with Stack() as stack:
        backlogs = Backlogs(stack, plan)
        for (_, row), runs in itertools.groupby(wanted, lambda run: (run.round, run.row)):
            with _whatever_happens(), ROWS[row].start(plan.parallelism) as start:
                if ROWS[row].on_java and plan.warm_s:
                    warm_up(stack, start, plan, backlogs.of("zipf"))
                for run in runs:
                    with _whatever_happens():
                        _say(f"{row}, {run.part} ...")
                        started = time.monotonic()
                        figures = _one(stack, start, backlogs, plan, run, folder)
                        figures |= {"took s": time.monotonic() - started, "load average": os.getloadavg()[0]}
                        _file(folder, *run).write_text(json.dumps(figures, indent=1))
                        _say(f"{row}, {run.part}: {report.line(figures)} ({figures['took s']:.0f} s)")
    return sum(not _file(folder, *run).exists() for run in wanted)


@contextmanager
def _whatever_happens() -> Iterator[None]:
    """Tell of a failure and go on: the other rows and parts are worth having."""
    try:
        yield
    except Exception:  # noqa: BLE001 - whatever it is
        traceback.print_exc()


def _one(stack: Stack, start: Start, backlogs: Backlogs, plan: Plan, run: Run, folder: Path) -> dict[str, Any]:
    if run.part in DRAINS:
        return drain(stack, start, plan, backlogs.of(run.part))
    measured = _file(folder, run.row, "zipf", run.round)
    highest = json.loads(measured.read_text())["events/s"] if measured.exists() else None
    return under_load(stack, start, plan, highest, ROWS[run.row].transactional)


def _wanted(rows: Sequence[str], parts: Sequence[str], rounds: int) -> Iterator[Run]:
    """Round after round, so that a machine that is slow for a while is so for all rows."""
    for number in range(1, rounds + 1):
        for row in rows:
            for part in PARTS if number == 1 else DRAINS:
                if part in parts and part in ROWS[row].parts:
                    yield Run(row, part, number)


def _minutes(wanted: Sequence[Run], plan: Plan) -> float:
    drain_s = _FIXED_S + plan.settle_s + plan.window_s
    load_s = _FIXED_S + len(plan.rates) * (plan.rate_s + 5) + plan.checkpoint_s / 2 + plan.recovery_s + 30
    starts = {(run.round, run.row) for run in wanted}
    warm_s = sum(_FIXED_S + plan.warm_s for _, row in starts if ROWS[row].on_java)
    return (warm_s + sum(drain_s if run.part in DRAINS else load_s for run in wanted)) / 60


def _plan(given: argparse.Namespace) -> Plan:
    fields = {name: getattr(given, name) for name in Plan.__dataclass_fields__}
    if given.quick:
        fields |= QUICK
    return Plan(**fields)


def _same_plan(folder: Path, plan: Plan) -> None:
    """Figures of different plans or code do not belong into one table."""
    path = folder / "run.json"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    now = json.loads(json.dumps({"commit": commit, "plan": plan_figures(plan)}))
    if not path.exists():
        path.write_text(json.dumps(now, indent=1))
        return
    before = json.loads(path.read_text())
    if before != now:
        raise SystemExit(f"{folder} holds figures of another run ({before}); give --out another folder or delete it")


def _results(folder: Path) -> report.Results:
    results: report.Results = {}
    for row, part in itertools.product(ROWS, PARTS):
        if rounds := [json.loads(file.read_text()) for file in sorted(folder.glob(f"{row}.{part}.*.json"))]:
            results.setdefault(row, {})[part] = best_round(rounds) if part in DRAINS else rounds[0]
    return results


def _file(folder: Path, row: str, part: str, number: int) -> Path:
    return folder / f"{row}.{part}.{number}.json"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=1, help="runs of each backlog; the quickest counts")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder of figures, tables and plots")
    parser.add_argument("--quick", action="store_true", help="a few thousand events: whether it runs, not how fast")
    parser.add_argument("--report_only", action="store_true", help="measure nothing, print what there is")
    parser.add_argument("--no-plot", dest="plot", action="store_false", help="no PNG files")
    parser.add_argument("--users", type=int, default=1000, help="users who are in state")
    parser.add_argument("--events", type=int, default=500_000, help="backlog of known users' events")
    parser.add_argument("--miss_events", type=int, default=60_000, help="backlog in which some users are new")
    parser.add_argument("--misses", type=float, default=0.1, help="share of events of new users in that backlog")
    parser.add_argument("--parallelism", type=int, default=1, help="slots, or processes of a peer without Flink")
    parser.add_argument("--checkpoint_s", type=float, default=60.0)
    parser.add_argument("--warm_s", type=float, default=45.0, help="run of a Flink cluster before it is measured")
    parser.add_argument("--settle_s", type=float, default=10.0, help="before the measured stretch of a backlog")
    parser.add_argument("--window_s", type=float, default=20.0, help="longest measured stretch of a backlog")
    parser.add_argument("--rates", type=_numbers, default=(500, 2000, 5000), help="events/s of the steady loads")
    parser.add_argument("--rate_s", type=float, default=30.0, help="length of each")
    parser.add_argument("--recovery_rate", type=int, default=500, help="events/s around the kill")
    parser.add_argument("--recovery_s", type=float, default=40.0, help="load after the kill")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
