"""docs/reliability.md from the figures of the last run: ``python -m tests.faults.report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.jobs import ROOT

RESULTS = ROOT / "docs" / "measurements" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- faults: written by make test-faults -->\n", "<!-- /faults -->"


def table(results: dict[str, dict[str, Any]]) -> str:
    """A row for each fault."""
    lines = [
        "| | fault | times | events | lost | duplicated | order inversions | webhooks repeated | recovery | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        verdict = result["verdict"]
        counts = [verdict["events"], verdict["lost"], verdict["duplicated"], verdict["order_inversions"]]
        webhooks = f"{verdict['webhook_repeats']:,} of {verdict['webhooks']:,}"
        notes = [f"{key}: {value}" for key, value in result["notes"].items()]
        cells = [name, result["what"], str(result["times"]), *(f"{count:,}" for count in counts), webhooks]
        cells += [recovery(result["recovery_s"]), "; ".join([*notes, f"seed {result['seed']}, {result['date']}"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def recovery(seconds: list[float]) -> str:
    """Median and longest."""
    if not seconds:
        return ""
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2]:.1f} s, at most {ordered[-1]:.1f} s"


def expected(page: str, results: dict[str, dict[str, Any]]) -> str:
    """The page as it should be."""
    before, _, rest = page.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{table(results)}\n{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(expected(PAGE.read_text(), json.loads(Path(RESULTS).read_text())))
