"""Pages in docs/measurements of what long tests have seen: each test that passes renews its own rows."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "measurements"


@dataclass(frozen=True)
class Figures:
    """A page NAME.md, made from NAME.json; ``rows`` are all that it has, in order."""

    name: str
    introduction: str
    rows: Sequence[str]

    def record(self, **figures: str) -> None:
        """Renew rows, named with ``_`` for a space, and write the page."""
        data = FOLDER / f"{self.name}.json"
        known = json.loads(data.read_text("utf-8")) if data.is_file() else {}
        run_on = f"{datetime.now(UTC).date().isoformat()}, {_commit()}"
        for key, figure in figures.items():
            known[key.replace("_", " ")] = [figure, run_on]
        ordered = {row: known[row] for row in self.rows if row in known}
        data.write_text(json.dumps(ordered, indent=2) + "\n", "utf-8")
        lines = "".join(f"| {row} | {figure} | {run_on} |\n" for row, (figure, run_on) in ordered.items())
        page = f"{self.introduction}\n| what | result | run on |\n|---|---|---|\n{lines}"
        (FOLDER / f"{self.name}.md").write_text(page, "utf-8")


@functools.cache  # before the first page is written, which is a change of the tree
def _commit() -> str:
    """The commit that the tests are of, marked if the tree has changes."""
    command = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
