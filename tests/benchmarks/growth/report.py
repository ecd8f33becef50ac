"""What the figures amount to: an exponent, a verdict, a table and a plot a dimension."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.figures import pyplot, save, shown, table
from tests.benchmarks.growth.dimensions import Dimension

# Of one dimension: figures by series, value of what grows, and repeat.
Measured = Mapping[str, Mapping[float, Sequence[Mapping[str, Any]]]]
# Cost of an event by the value of what grows, in its order.
Costs = Mapping[float, float]

FLAT: Final = 1.3
# Above 1 by what figures scatter: of all values together, and from one value to the next.
LINEAR: Final = 1.1
STEEPEST: Final = 1.25

_IN_PROCESS: Final = (
    "µs/event", "reference µs/event", "relative", "GC µs/event", "longest bundle ms", "memory B/user",
    "journal B/user", "journal B/event", "rewritten, times a shard",
)  # fmt: skip
_ON_STACK: Final = (
    "events/s", "worker µs/event", "TaskManager µs/event", "broker µs/event", "p50", "p99", "worker RSS MB",
    "checkpoint MB", "lost",
)  # fmt: skip


@dataclass(frozen=True)
class FilterResult:
    """Whether what is claimed holds, and why; None: there are too few values to say."""

    holds: bool | None
    text: str


def exponent(costs: Costs) -> float:
    """The k of cost ~ value^k: the slope of a least-squares line through the logarithms.

    Raises:
        ValueError: fewer than two values above 0.
    """
    points = [(math.log(value), math.log(cost)) for value, cost in costs.items() if value > 0]
    if len(points) < 2:
        raise ValueError(f"{len(points)} values above 0, a slope needs two")
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def steepest(costs: Costs) -> float:
    """The largest exponent from one value to the next: it tells what a line through all of them evens out.

    Raises:
        ValueError: fewer than two values above 0.
    """
    values = sorted(value for value in costs if value > 0)
    if len(values) < 2:
        return exponent(costs)
    return max(
        exponent({smaller: costs[smaller], larger: costs[larger]}) for smaller, larger in itertools.pairwise(values)
    )


def verdict(dimension: Dimension, costs: Costs) -> FilterResult:
    """What a series says of the dimension's claim."""
    positive = [value for value in costs if value > 0]
    if len(positive) < 2:
        return FilterResult(None, "too few values")
    fit = f"cost ~ n^{exponent(costs):.2f}, steepest step n^{steepest(costs):.2f}"
    if dimension.claim == "linear":
        holds = exponent(costs) <= LINEAR and steepest(costs) <= STEEPEST
        return FilterResult(holds, f"{fit}: {'not worse' if holds else 'worse'} than linear")
    largest = max(costs)
    if dimension.base not in costs or largest == dimension.base:
        return FilterResult(None, f"{fit}; nothing beyond {dimension.base:,.0f} {dimension.unit} to compare with it")
    if dimension.claim == "flat":
        ratio = costs[largest] / costs[dimension.base]
        compared = f"{largest:,.0f} {dimension.unit} against {dimension.base:,.0f}: x{ratio:.2f}"
    else:
        ratio = max(cost / costs[dimension.base] for value, cost in costs.items() if value > dimension.base)
        compared = f"at most x{ratio:.2f} of that at {dimension.base:,.0f} {dimension.unit}"
    holds = ratio <= FLAT
    return FilterResult(holds, f"{fit}; {compared}: {'' if holds else 'not '}{dimension.claim} (allowed: x{FLAT:g})")


def costs(measured: Mapping[float, Sequence[Mapping[str, Any]]]) -> dict[float, float]:
    """Cost of an event by value, median of the repeats: against the reference slot in process, CPU-µs on the stack."""
    return {value: _median([_cost(run) for run in runs]) for value, runs in sorted(measured.items()) if runs}


def _cost(figures: Mapping[str, Any]) -> float:
    if "relative" in figures:
        return float(figures["relative"])
    return float(figures["worker µs/event"] + figures["TaskManager µs/event"])


def text(dimension: Dimension, measured: Measured) -> str:
    """A dimension in Markdown: title, tables, verdicts."""
    parts = [f"### {dimension.title}"]
    for series, by_value in measured.items():
        columns = _ON_STACK if dimension.on_stack else _IN_PROCESS
        there = [name for name in columns if any(name in run for runs in by_value.values() for run in runs)]
        lines = [
            [f"{value:,.0f}", *(_cell([run.get(name) for run in runs]) for name in there), str(len(runs))]
            for value, runs in sorted(by_value.items())
        ]
        found = verdict(dimension, costs(by_value))
        holds = {True: "holds", False: "does not hold", None: "open"}[found.holds]
        if series:
            parts.append(f"**{series}**")
        parts += [table((dimension.unit, *there, "runs"), lines), f"{holds}: {found.text}"]
    if dimension.note:
        parts.append(dimension.note)
    return "\n\n".join(parts)


def _cell(values: Sequence[Any]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    found = _median(numbers)
    return shown(found, 2 if abs(found) < 10 else 0)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def draw(path: Path, dimension: Dimension, measured: Measured) -> None:
    """Cost of an event against what grows; on the stack with its parts, and latency where there is a rate.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    shows_latency = any(
        figures.get("p50") for runs in measured.values() for value in runs.values() for figures in value
    )
    figure, axes = pyplot().subplots(1, 1 + shows_latency, figsize=(6 + 6 * shows_latency, 4), squeeze=False)
    if dimension.on_stack:
        (by_value,) = measured.values()
        for part in ("worker", "TaskManager", "broker"):
            _line(axes[0][0], by_value, f"{part} µs/event", part)
        axes[0][0].set(ylabel="CPU-µs an event")
    else:
        for series, by_value in measured.items():
            points = costs(by_value)
            axes[0][0].plot(list(points), list(points.values()), marker="o", label=series)
        axes[0][0].set(ylabel="cost of an event, times the reference slot's")
    if shows_latency:
        for part in ("p50", "p99"):
            _line(axes[0][1], by_value, part, part)
        axes[0][1].set(ylabel="ms, append to append")
    for axis in axes[0]:
        axis.set(xlabel=dimension.unit, title=dimension.title, xscale="symlog" if dimension.on_stack else "log")
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8)
    save(figure, path)


def _line(axes: Any, by_value: Mapping[float, Sequence[Mapping[str, Any]]], name: str, label: str) -> None:
    points = {
        value: _median([run[name] for run in runs])
        for value, runs in sorted(by_value.items())
        if runs and all(run.get(name) is not None for run in runs)
    }
    axes.plot(list(points), list(points.values()), marker="o", label=label)
