"""Takes measurements into the figures of the capacity command: ``python -m tests.benchmarks.capacity_figures``.

``--bench`` is the output folder of `make bench` (rows `shards` and `users`, part `zipf`), ``--growth`` that of `make
bench-growth` (dimension `users`), ``--state`` a file of `make bench-state ARGS='size --json=FILE'`. Figures of what is
not given stay. `make readme` then writes the tables of docs/capacity.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.cli.capacity.model import FIGURES_FILE

Document = dict[str, dict[str, Any]]

# Figure -> name in the measurement, and what one of that is here.
_SHARDS: Final = {
    "worker_us_per_event": ("worker µs/event", 1),
    "task_manager_us_per_event": ("TaskManager µs/event", 1),
    "broker_us_per_event": ("broker µs/event", 1),
    "highest_rate_seen": ("events/s", 1),
}
_USERS: Final = {
    "by_user_worker_us_per_event": ("worker µs/event", 1),
    "by_user_task_manager_us_per_event": ("TaskManager µs/event", 1),
}
_GROWTH: Final = {"journal_bytes_per_event": ("journal B/event", 1), "action_bytes": ("action B", 1)}
_STATE: Final = {
    "memory_bytes_per_user": ("workers KB/user, restored", 1000),
    "journal_bytes_per_user": ("journal B/user (savepoint / users)", 1),
}


def taken(
    document: Document, names: Mapping[str, tuple[str, float]], measured: Mapping[str, Any], date: str, commit: str,
    command: str,
) -> Document:  # fmt: skip
    """The figures with some of them as they were measured, whole numbers.

    Raises:
        KeyError: one was not measured.
    """
    origin = {"date": date, "commit": commit, "command": command}
    return document | {
        figure: document[figure] | {"value": round(measured[name] * factor)} | origin
        for figure, (name, factor) in names.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Take in what is given."""
    given = _parser().parse_args(argv)
    document: Document = json.loads(FIGURES_FILE.read_text("utf-8"))
    if given.bench is not None:
        commit = json.loads((given.bench / "run.json").read_text())["commit"][:7]
        path = given.bench / "results.json"
        results = json.loads(path.read_text())
        for row, names in (("shards", _SHARDS), ("users", _USERS)):
            if "zipf" in results.get(row, {}):
                command = f"make bench ARGS='--rows {row} --parts zipf'"
                document = taken(document, names, results[row]["zipf"], _date(path), commit, command)
    if given.growth is not None:
        # Of the fewest users, whose journals are rewritten several times meanwhile: that is part of what is written.
        (path, *_) = sorted(given.growth.glob("users.100-events-of-history.1000.*.json"))
        measured = json.loads(path.read_text())
        command = "make bench-growth ARGS='--dimensions users'"
        document = taken(document, _GROWTH, measured, measured["date"], measured["commit"], command)
    if given.state is not None:
        (measured,) = [
            measurement["figure"]
            for name, measurement in json.loads(given.state.read_text()).items()
            if "figure" in measurement
        ]
        command = f"make bench-state ARGS='size --users={measured['users']} --user_shards={measured['user_shards']}'"
        document = taken(document, _STATE, measured, _date(given.state), _commit(), command)
    FIGURES_FILE.write_text(f"{json.dumps(document, indent=1, ensure_ascii=False)}\n", "utf-8")
    return 0


def _date(path: Path) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime))


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.capacity_figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bench", type=Path, help="folder of make bench")
    parser.add_argument("--growth", type=Path, help="folder of make bench-growth")
    parser.add_argument("--state", type=Path, help="file of make bench-state")
    return parser


if __name__ == "__main__":
    sys.exit(main())
