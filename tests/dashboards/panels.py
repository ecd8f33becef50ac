"""A dashboard's panels as its JSON says, and what Prometheus answered, as far as it is drawn. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.dashboards.units import UNITS
from tests.monitoring import filled

TIMESERIES, STAT, STATES = "timeseries", "stat", "state-timeline"
_COLUMNS: Final = 24


class BoardError(ValueError):
    """A dashboard has what is not drawn here; names panel, value and what is."""


@dataclass(frozen=True)
class Panel:
    """What is drawn of a panel; ``grid`` is x, y, width and height in Grafana's units, ``fill`` 0 to 1."""

    id: int
    kind: str
    title: str
    grid: tuple[int, int, int, int]
    unit: str
    maximum: float | None
    fill: float
    sparkline: bool
    if_empty: str
    queries: tuple[tuple[str, str], ...]
    thresholds: tuple[tuple[float, str], ...] = ()
    mappings: Mapping[float, tuple[str, str]] | None = None

    def colour(self, value: float) -> str:
        """The name of the colour that mappings or thresholds give a value."""
        if self.mappings and value in self.mappings:
            return self.mappings[value][1]
        return next((name for least, name in reversed(self.thresholds) if value >= least), "text")


@dataclass(frozen=True)
class Series:
    """A line: its name in the legend, ``(Unix time in seconds, value)`` in order; what is not a number is left out."""

    name: str
    points: tuple[tuple[float, float], ...]


def panels(board: Mapping[str, Any]) -> list[Panel]:
    """The panels of a dashboard.

    Raises:
        BoardError: one has a type or unit that is not drawn here, or lies outside of the grid.
    """
    return [_panel(panel) for panel in board["panels"]]


def _panel(panel: Mapping[str, Any]) -> Panel:
    title, kind, grid = panel["title"], panel["type"], tuple(panel["gridPos"][side] for side in "xywh")
    defaults = panel["fieldConfig"]["defaults"]
    for attribute, value, allowed in (
        ("type", kind, {TIMESERIES, STAT, STATES}),
        ("unit", unit := defaults.get("unit", "short"), UNITS),
        ("right edge", grid[0] + grid[2], range(_COLUMNS + 1)),
    ):
        if value not in allowed:
            raise BoardError(
                f"panel {title!r} has {attribute} {value!r}; drawn are {', '.join(map(str, sorted(allowed)))}"
            )
    return Panel(
        id=panel["id"],
        kind=kind,
        title=title,
        grid=grid,
        unit=unit,
        maximum=defaults.get("max"),
        fill=defaults.get("custom", {}).get("fillOpacity", 0) / 100,
        sparkline=panel["options"].get("graphMode") == "area",
        if_empty=defaults.get("noValue", "No data"),
        queries=tuple((target["legendFormat"], target["expr"]) for target in panel["targets"]),
        # The first step's value is null: from the least number on.
        thresholds=tuple(
            (-math.inf if step["value"] is None else step["value"], step["color"])
            for step in defaults.get("thresholds", {}).get("steps", ())
        ),
        mappings={
            float(value): (to["text"], to["color"])
            for mapping in defaults.get("mappings", ())
            for value, to in mapping["options"].items()
        },
    )


def range_query(query: str, step_s: int, scrape_s: int, range_s: int) -> str:
    """A query as Grafana asks it for steps of ``step_s``: all jobs, ``$__rate_interval`` over four scrapes or more."""
    return filled(query, f"{max(step_s + scrape_s, 4 * scrape_s)}s", f"{range_s}s")


def series(legend: str, answer: Sequence[Mapping[str, Any]]) -> list[Series]:
    """Lines of a ``matrix`` of Prometheus' HTTP API, by name."""
    found = []
    for series in answer:
        name = _named(legend, series["metric"])
        points = ((float(at), float(value)) for at, value in series["values"])
        found.append(Series(name, tuple((at, value) for at, value in points if math.isfinite(value))))
    return sorted((series for series in found if series.points), key=lambda series: series.name)


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], found[1]), legend)


def runs(points: Sequence[tuple[float, float]], step_s: float) -> Iterator[list[tuple[float, float]]]:
    """Pieces of a line: where points are missing it has a gap."""
    piece: list[tuple[float, float]] = []
    for point in points:
        if piece and point[0] - piece[-1][0] > 1.5 * step_s:
            yield piece
            piece = []
        piece.append(point)
    if piece:
        yield piece


def held(points: Sequence[tuple[float, float]], step_s: float) -> Iterator[tuple[float, float, float]]:
    """From when until when which value held: neighbours with the same one are one piece."""
    for piece in runs(points, step_s):
        begun = 0
        for number in range(1, len(piece) + 1):
            if number == len(piece) or piece[number][1] != piece[begun][1]:
                ended = piece[number][0] if number < len(piece) else piece[-1][0]
                yield piece[begun][0], ended, piece[begun][1]
                begun = number


def clock_ticks(start: float, end: float, most: int) -> list[float]:
    """Full minutes between two Unix times to label, at most ``most``."""
    steps = (60 * minutes for minutes in (1, 2, 5, 10, 15, 30, 60))
    step = next(step for step in steps if (end - start) / step <= most)
    first = math.ceil(start / step) * step
    return [first + number * step for number in range(int((end - first) // step) + 1)]
