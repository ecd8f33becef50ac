"""This pipeline beside its peers, on one broker. ``make bench``.

Rows and parts that are measured already are kept in the output folder and skipped, so a run that was stopped goes on
where it was. Everything shares the machine, so ratios of one run say more than its absolute numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeline.run import quieten
from tests.benchmarks.peers import report
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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print and plot all there is; 1 if a part failed."""
    quieten()
    given = _parser().parse_args(argv)
    plan = _plan(given)
    folder: Path = given.out
    if not given.report_only:
        folder.mkdir(parents=True, exist_ok=True)
        _same_plan(folder, plan)
    wanted = [(row, part) for row, part in _wanted(given.rows, given.parts) if not _file(folder, row, part).exists()]
    if wanted and not given.report_only:
        _say(f"{len(wanted)} measurements, about {_minutes(wanted, plan):.0f} minutes; results in {folder}")
        failed = _measure(wanted, plan, folder)
    else:
        failed = 0
    report.write(folder, _results(folder), given.plot)
    return 1 if failed else 0


def _measure(wanted: Sequence[tuple[str, str]], plan: Plan, folder: Path) -> int:
    """Measure; how many failed."""
    for row in dict.fromkeys(row for row, _ in wanted):
        ROWS[row].prepare()
    with Stack() as stack:
        backlogs = Backlogs(stack, plan)
        for row in dict.fromkeys(row for row, _ in wanted):
            with _whatever_happens(), ROWS[row].start(plan.parallelism) as start:
                if ROWS[row].on_java and plan.warm_s:
                    warm_up(stack, start, plan, backlogs.of("zipf"))
                for part in [part for one, part in wanted if one == row]:
                    with _whatever_happens():
                        _say(f"{row}, {part} ...")
                        started = time.monotonic()
                        figures = _one(stack, start, backlogs, plan, row, part, folder)
                        figures |= {"took s": time.monotonic() - started, "load average": os.getloadavg()[0]}
                        _file(folder, row, part).write_text(json.dumps(figures, indent=1))
                        _say(f"{row}, {part}: {report.line(figures)} ({figures['took s']:.0f} s)")
    return sum(not _file(folder, row, part).exists() for row, part in wanted)


@contextmanager
def _whatever_happens() -> Iterator[None]:
    """Tell of a failure and go on: the other rows and parts are worth having."""
    try:
        yield
    except Exception:  # noqa: BLE001 - whatever it is
        traceback.print_exc()


def _one(
    stack: Stack, start: Start, backlogs: Backlogs, plan: Plan, row: str, part: str, folder: Path
) -> dict[str, Any]:
    if part in DRAINS:
        return drain(stack, start, plan, backlogs.of(part))
    measured = _file(folder, row, "zipf")
    highest = json.loads(measured.read_text())["events/s"] if measured.exists() else None
    return under_load(stack, start, plan, highest, ROWS[row].transactional)


def _wanted(rows: Sequence[str], parts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for row in rows:
        for part in PARTS:
            if part in parts and part in ROWS[row].parts:
                yield row, part


def _minutes(wanted: Sequence[tuple[str, str]], plan: Plan) -> float:
    drain_s = _FIXED_S + plan.settle_s + plan.window_s
    load_s = _FIXED_S + len(plan.rates) * (plan.rate_s + 5) + plan.checkpoint_s / 2 + plan.recovery_s + 30
    warm_s = sum(_FIXED_S + plan.warm_s for row in {row for row, _ in wanted} if ROWS[row].on_java)
    return (warm_s + sum(drain_s if part in DRAINS else load_s for _, part in wanted)) / 60


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
    return {
        row: {part: json.loads(file.read_text()) for part in PARTS if (file := _file(folder, row, part)).exists()}
        for row in ROWS
        if any(_file(folder, row, part).exists() for part in PARTS)
    }


def _file(folder: Path, row: str, part: str) -> Path:
    return folder / f"{row}.{part}.json"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
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
