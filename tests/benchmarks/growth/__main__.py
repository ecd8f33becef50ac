"""How the cost of an event grows: users in state, history, rules, linger, bundles, parallelism. ``make bench-growth``.

Each run of a point is kept in a file of its own in the output folder and skipped the next time, so a run that was
stopped goes on where it was. Users, history and rules are measured in process, the rest on the real Kafka and Flink.
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
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.growth import report
from tests.benchmarks.growth.dimensions import QUICK, Dimension, OnStack, Sizes, dimensions, point_figures
from tests.benchmarks.growth.stage import Point

# A slot of so many users takes so many bytes of each: what is not in its history, and a row of that.
_USER_BYTES: Final = 4500
_ROW_BYTES: Final = 85
_RESERVE_BYTES: Final = 3_000_000_000


@dataclass(frozen=True)
class Run:
    """One repeat of one point, and where its figures are kept."""

    dimension: Dimension
    series: str
    value: float
    repeat: int
    folder: Path

    @property
    def point(self) -> Point | OnStack:
        """What is measured."""
        return self.dimension.series[self.series][self.value]

    @property
    def file(self) -> Path:
        """Its figures."""
        series = "-".join(self.series.split())
        return self.folder / ".".join(
            filter(None, (self.dimension.name, series, f"{self.value:.0f}", str(self.repeat), "json"))
        )

    def __str__(self) -> str:
        series = f", {self.series}" if self.series else ""
        return f"{self.dimension.name} {self.value:,.0f}{series}, run {self.repeat}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print and plot all there is; 1 if a point failed."""
    given = _parser().parse_args(argv)
    sizes = QUICK if given.quick else Sizes()
    found = dimensions(replace(sizes, users=tuple(users for users in sizes.users if users <= given.most_users)))
    wanted = [found[name] for name in given.dimensions]
    given.out.mkdir(parents=True, exist_ok=True)
    runs = list(_runs(wanted, 1 if given.quick else given.repeats, given.stack_repeats, given.out))
    missing = [] if given.report_only else [run for run in runs if not _is_measured(run)]
    failed = _measure(missing) if missing else 0
    _write(given.out, wanted, runs, given.plot)
    return 1 if failed else 0


def _runs(wanted: Sequence[Dimension], repeats: int, stack_repeats: int, folder: Path) -> Iterator[Run]:
    """Repeats outermost: what a machine does for some minutes then does not hit all runs of one point. What needs
    Kafka and Flink comes last, so that they do not run beside the rest."""
    for on_stack, times in ((False, repeats), (True, stack_repeats)):
        for repeat in range(1, times + 1):
            for dimension in wanted:
                if dimension.on_stack is on_stack:
                    for series, points in dimension.series.items():
                        for value in points:
                            yield Run(dimension, series, value, repeat, folder)


def _is_measured(run: Run) -> bool:
    """Whether its figures are there.

    Raises:
        SystemExit: they are of something else.
    """
    if not run.file.exists():
        return False
    kept = json.loads(run.file.read_text())["point"]
    if kept != json.loads(json.dumps(point_figures(run.point))):
        raise SystemExit(f"{run.file} is of another point ({kept}); give --out another folder or delete it")
    return True


def _measure(runs: Sequence[Run]) -> int:
    failed = 0
    with ExitStack() as at_the_end:
        stack = None
        for number, run in enumerate(runs, 1):
            _say(f"{number} of {len(runs)}: {run} ...")
            started = time.monotonic()
            try:
                if isinstance(run.point, Point):
                    if (lacking := _lacks_memory(run.point, _available_bytes())) is not None:
                        _say(f"skipped: {lacking}")
                        continue
                    figures = _in_process(run.point)
                else:
                    if stack is None:
                        from tests.benchmarks.growth.stack import warm_stack

                        most_slots = max(run.point.slots for run in runs if isinstance(run.point, OnStack))
                        stack = at_the_end.enter_context(warm_stack(most_slots, run.point))
                    figures = stack.measure(run.point)
            except Exception:  # noqa: BLE001 - the other points are worth having
                traceback.print_exc()
                failed += 1
                continue
            took_s = time.monotonic() - started
            run.file.write_text(json.dumps(_about(run) | {"took s": took_s} | figures, indent=1))
            _say(f"{report._cost(figures):.3g}, {took_s:.0f} s")
    return failed


def _in_process(point: Point) -> dict[str, Any]:
    """A process for each point: none inherits another's memory."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.growth.stage", json.dumps(asdict(point))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"the point ended with {done.returncode}: {done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _lacks_memory(point: Point, available_bytes: int) -> str | None:
    """Why a point would not fit this machine; None if it does."""
    needed = point.users * (_USER_BYTES + _ROW_BYTES * point.history) + _RESERVE_BYTES
    if needed <= available_bytes:
        return None
    return (
        f"{point.users:,} users with {point.history} events each need {needed / 1e9:.1f} GB with a reserve of "
        f"{_RESERVE_BYTES / 1e9:.0f}, available are {available_bytes / 1e9:.1f}"
    )


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _about(run: Run) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return {
        "point": point_figures(run.point),
        "commit": commit.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "load average": os.getloadavg()[0],
    }


def _write(folder: Path, wanted: Sequence[Dimension], runs: Sequence[Run], plot: bool) -> None:
    """Print the tables; write ``tables.md``, ``results.json`` and a plot a dimension."""
    parts, results = [], {}
    for dimension in wanted:
        measured: dict[str, dict[float, list[dict[str, Any]]]] = {}
        for run in runs:
            if run.dimension is dimension and _is_measured(run):
                kept = json.loads(run.file.read_text())
                measured.setdefault(run.series, {}).setdefault(run.value, []).append(kept)
        if measured:
            parts.append(report.text(dimension, measured))
            results[dimension.name] = measured
            if plot:
                report.draw(folder / f"{dimension.name}.png", dimension, measured)
    print("\n\n".join(parts))
    (folder / "tables.md").write_text("\n\n".join(parts) + "\n")
    (folder / "results.json").write_text(json.dumps(results, indent=1))


def _parser() -> argparse.ArgumentParser:
    names = list(dimensions(QUICK))
    parser = argparse.ArgumentParser(prog="make bench-growth", description=__doc__)
    parser.add_argument(
        "--dimensions", nargs="+", choices=names, default=names, metavar="DIMENSION", help=", ".join(names)
    )
    parser.add_argument("--out", type=Path, default=Path("build/growth"), help="folder of figures, tables and plots")
    parser.add_argument("--quick", action="store_true", help="a few values and events: whether it runs, not how fast")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each point in process")
    parser.add_argument("--stack_repeats", type=int, default=1, help="runs of each point on Kafka and Flink")
    parser.add_argument("--most_users", type=int, default=1_000_000, help="leave out points with more users in state")
    parser.add_argument("--report_only", action="store_true", help="measure nothing, print what there is")
    parser.add_argument("--no-plot", dest="plot", action="store_false", help="no PNG files")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
