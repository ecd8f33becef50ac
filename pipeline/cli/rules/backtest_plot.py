"""A plot of firings over time, with a row for each rule and a common time axis."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from transforms.domain.simulation.backtest import Report, RuleReport
from transforms.domain.simulation.timelines import next_width_ms, wider

_MAX_BARS: Final = 200
_MAX_RULES: Final = 30
_COLOURS: Final = ("#2b6cb0", "#dd6b20")
_GREY: Final = "#718096"

_Row = tuple[str, list[RuleReport | None]]


def plot_firings(reports: Sequence[Report], names: Sequence[str], path: Path) -> None:
    """Plot one report, or two to compare, into a file in the format of its suffix.

    ``names`` are those of the rule sets. If there are more than 30 rules, those that fire most are shown.

    Raises:
        OSError: the file cannot be written.
    """
    first_ms, last_ms = reports[0].first_ms or 0, reports[0].last_ms or 0
    all_rows = _rows(reports)
    most_fired = sorted(all_rows, key=lambda row: -max(map(_fired, row[1])))[:_MAX_RULES]
    rows = [row for row in all_rows if row in most_fired]
    width_ms = max(rule.firings_every_ms for report in reports for rule in report.rules)
    while (last_ms - first_ms) / width_ms > _MAX_BARS:
        width_ms = next_width_ms(width_ms)

    figure = Figure(figsize=(11, 1.3 + 0.75 * max(len(rows), 2)), dpi=110, layout="constrained")
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, rule_reports) in zip(axes, rows, strict=True):
        for number, (rule, set_name) in enumerate(zip(rule_reports, names, strict=True)):
            _draw(axis, rule, width_ms, _COLOURS[number], set_name, number == 0)
        _label(axis, name, rule_reports)
    axes[-1].set_xlim(_time(first_ms - width_ms), _time(last_ms + width_ms))
    locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    axes[-1].set_xlabel("UTC", fontsize=9)
    figure.align_ylabels(axes)
    left_out = len(all_rows) - len(rows)
    note = f" (of the {len(rows)} rules that fire most, {left_out} are left out)" if left_out else ""
    figure.suptitle(f"Firings per {_span(width_ms)}{note}", fontsize=11)
    if len(reports) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", fontsize=9, frameon=False)
    figure.savefig(path)


def _rows(reports: Sequence[Report]) -> list[_Row]:
    """Each rule with its part of each report."""
    by_name = [{rule.rule: rule for rule in report.rules} for report in reports]
    names = dict.fromkeys(name for rules in by_name for name in rules)
    return [(name, [rules.get(name) for rules in by_name]) for name in names]


def _fired(rule: RuleReport | None) -> int:
    return 0 if rule is None else rule.counts.get("fired", 0)


def _draw(axis: Axes, rule: RuleReport | None, width_ms: int, colour: str, set_name: str, is_filled: bool) -> None:
    """Draw a step for each bucket, as an area or as a line."""
    counts = dict(wider(rule.firings, width_ms)) if rule is not None else {}
    starts = sorted({start_ms for at_ms in counts for start_ms in (at_ms, at_ms + width_ms)}) or [0]
    edges: Any = [_time(start_ms) for start_ms in starts]
    heights = [counts.get(start_ms, 0) for start_ms in starts]
    if is_filled:
        axis.fill_between(edges, heights, step="post", color=colour, alpha=0.5, lw=0, label=set_name)
    else:
        axis.step(edges, heights, where="post", color=colour, lw=1.6, label=set_name)


def _label(axis: Axes, name: str, rule_reports: list[RuleReport | None]) -> None:
    fired = " → ".join("-" if rule is None else f"{_fired(rule):,}" for rule in rule_reports)
    axis.set_ylabel(f"{_short(name)}\n{fired}", rotation=0, ha="right", va="center", fontsize=9)
    axis.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axis.set_ylim(bottom=0)
    if not any(map(_fired, rule_reports)):
        axis.set_ylim(0, 1)
        axis.set_yticks([])
        axis.text(0.5, 0.5, "never", transform=axis.transAxes, ha="center", va="center", color=_GREY, fontsize=9)
    axis.tick_params(labelsize=8, colors=_GREY)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(_GREY)


def _short(name: str, length: int = 30) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _span(width_ms: int) -> str:
    span = timedelta(milliseconds=width_ms)
    for unit, name in ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute")):
        if span >= unit:
            return name if span == unit else f"{span // unit} {name}s"
    raise ValueError(f"{width_ms} ms")
