"""Figures as people read them: Markdown tables, plots, quantities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def shown(value: Any, digits: int = 0) -> str:
    """A figure in a table, ``-`` if there is none; several side by side."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " / ".join(shown(item, digits) for item in value)
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) < 10:
        digits = max(digits, 1)
    return f"{value:,.{digits}f}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all but the first column to the right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


def pyplot() -> Any:
    """matplotlib's, which draws into files.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise RuntimeError("plots need matplotlib: install event-trigger[plot], or give --no-plot") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as found

    return found


def save(figure: Any, path: Path) -> None:
    """Write a figure and let it go."""
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot().close(figure)
