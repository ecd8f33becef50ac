"""Lines of small charts as SVG paths. A value of None is a gap; a value between two gaps is a dot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

WIDTH: Final = 600
HEIGHT: Final = 60
_MARGIN: Final = 2  # so that the line is not cut off at the highest value

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at a share of the width, 0 to 1, with a text."""

    at: float
    text: str
    is_bad: bool = False

    @property
    def x(self) -> float:
        """Its place in the drawing."""
        return round(WIDTH * self.at, 1)


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A chart. All ``lines`` share its scale, which begins at 0; the first one has its area filled.

    Attributes:
        name: what is drawn; part of what screen readers say.
        unit: of the values, with the space before it, as " ms".
        lines: the values of each line, from left to right, by name.
        marks: vertical lines.
    """

    name: str
    unit: str
    lines: Mapping[str, Values]
    marks: Sequence[Mark] = ()
    span: str = "the last hour"
    highest: float = field(init=False)

    def __post_init__(self) -> None:
        seen = [value for values in self.lines.values() for value in values if value is not None]
        object.__setattr__(self, "highest", max(seen, default=0.0))

    @property
    def paths(self) -> list[str]:
        """The ``d`` of each line."""
        return [line_path(values, self.highest) for values in self.lines.values()]

    @property
    def area(self) -> str:
        """The ``d`` of the area under the first line."""
        return area_path(next(iter(self.lines.values()), ()), self.highest)

    @property
    def is_empty(self) -> bool:
        """Whether there is no value to draw."""
        return all(value is None for values in self.lines.values() for value in values)

    @property
    def highest_text(self) -> str:
        """The value at the top."""
        return f"{number(self.highest)}{self.unit}"

    @property
    def description(self) -> str:
        """The chart in words."""
        if self.is_empty:
            return f"{self.span}: nothing seen yet"
        parts = []
        for name, values in self.lines.items():
            seen = [value for value in values if value is not None]
            if seen:
                extent = f"{number(min(seen))} to {number(max(seen))}, last {number(seen[-1])}{self.unit}"
                parts.append(f"{name} {extent}" if len(self.lines) > 1 else extent)
        marks = "; ".join(mark.text for mark in self.marks)
        return f"{self.span}: {'; '.join(parts)}{f'. Marks: {marks}' if marks else ''}"


def number(value: float | None) -> str:
    """A number as people read it: three digits that count, thousands apart; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2g}" if abs(value) < 1 else f"{value:,.2f}"


def line_path(values: Values, highest: float) -> str:
    """The ``d`` of a line through the values; a lone value has the length 0, which round caps make a dot."""
    parts = []
    for run in _runs(values, highest):
        points = run if len(run) > 1 else [*run, run[0]]
        parts.append("M" + "L".join(f"{x} {y}" for x, y in points))
    return "".join(parts)


def area_path(values: Values, highest: float) -> str:
    """The ``d`` of the area between the values and 0."""
    return "".join(
        f"M{run[0][0]} {HEIGHT}L{'L'.join(f'{x} {y}' for x, y in run)}L{run[-1][0]} {HEIGHT}Z"
        for run in _runs(values, highest)
        if len(run) > 1
    )


def _runs(values: Values, highest: float) -> list[list[tuple[float, float]]]:
    """The points of each stretch without a gap."""
    runs: list[list[tuple[float, float]]] = []
    step = WIDTH / max(1, len(values))
    is_gap = True
    for place, value in enumerate(values):
        if value is None:
            is_gap = True
            continue
        if is_gap:
            runs.append([])
            is_gap = False
        height = (HEIGHT - 2 * _MARGIN) * value / highest if highest > 0 else 0.0
        runs[-1].append((round((place + 0.5) * step, 1), round(HEIGHT - _MARGIN - height, 1)))
    return runs
