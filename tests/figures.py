"""Pages in docs/measurements of what long tests have seen: each test that passes renews its own rows."""

from __future__ import annotations

import json
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
        today = datetime.now(UTC).date().isoformat()
        for key, figure in figures.items():
            known[key.replace("_", " ")] = [figure, today]
        ordered = {row: known[row] for row in self.rows if row in known}
        data.write_text(json.dumps(ordered, indent=2) + "\n", "utf-8")
        lines = "".join(f"| {row} | {figure} | {day} |\n" for row, (figure, day) in ordered.items())
        page = f"{self.introduction}\n| what | result | run on |\n|---|---|---|\n{lines}"
        (FOLDER / f"{self.name}.md").write_text(page, "utf-8")
