"""Tables on standard output, everything as JSON, and plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.figures import pyplot, save, shown, table
from tests.benchmarks.peers.analysis import ratios
from tests.benchmarks.peers.sampling import JIT
from tests.benchmarks.peers.systems import ROWS

Figures = Mapping[str, Any]
Results = dict[str, dict[str, dict[str, Any]]]  # by row and part

OURS: Final = "shards"
LIMIT: Final = "plain"
_PROCESSES: Final = ("worker", "TaskManager")
_TITLES: Final = {"zipf": "Zipf keys", "uniform": "uniform keys", "misses": "Zipf keys, some users new"}


def write(folder: Path, results: Results, plot: bool) -> None:
    """Print the tables, write ``tables.md``, ``results.json`` and, if wanted, the plots."""
    text = "\n\n".join(tables(results))
    print(text)
    (folder / "tables.md").write_text(text + "\n")
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    if plot and results:
        draw(folder, results)


def tables(results: Results) -> list[str]:
    """All tables, as Markdown."""
    made = [_guarantees(results)]
    for part, title in _TITLES.items():
        if rows := {row: parts[part] for row, parts in results.items() if part in parts}:
            made += [f"### Highest steady rate, {title}\n\n{_drains(rows)}", _ratios(rows)]
    if rows := {row: parts["load"] for row, parts in results.items() if "load" in parts}:
        made += [f"### Latency, ms, broker append to broker append\n\n{_latencies(rows)}"]
        made += [f"### Checkpoints, a kill -9, and what came out\n\n{_faults(rows)}"]
    return made


def line(figures: Figures) -> str:
    """One measurement in a few words."""
    if "events/s" in figures:
        return f"{figures['events/s']:.0f} events/s, {cpu(figures):.0f} CPU-µs an event"
    rates = ", ".join(f"{rate}/s p99 {shown(latency.get('p99'))}" for rate, latency in figures["rates"].items())
    return f"{rates}; lost {figures['lost']}, duplicated {figures['duplicated']}"


def cpu(figures: Figures) -> float:
    """CPU-µs an event of the system itself, without broker and user API."""
    return float(sum(figures.get(f"{name} µs/event", 0.0) for name in _PROCESSES))


def _guarantees(results: Results) -> str:
    return table(("row", "guarantee through a kill"), [(ROWS[row].title, ROWS[row].guarantee) for row in results])


def _drains(rows: Mapping[str, Figures]) -> str:
    columns: dict[str, Callable[[Figures], Any]] = {
        "events/s": lambda figures: figures["events/s"],
        "of rounds": _of("rounds"),
        **{f"{name} µs/event": _of(f"{name} µs/event") for name in (*_PROCESSES, "broker", "user API")},
        f"{JIT} µs/event": _of(f"{JIT} µs/event"),
        "system µs/event": cpu,
        **{f"{name} RSS MB": _of(f"{name} RSS MB") for name in _PROCESSES},
        "first action after s": _of("first action after s"),
    }
    lines = [(ROWS[row].title, *(shown(pick(figures)) for pick in columns.values())) for row, figures in rows.items()]
    return table(("row", *columns), lines)


def _ratios(rows: Mapping[str, Figures]) -> str:
    rate = {row: figures["events/s"] for row, figures in rows.items()}
    busy = {row: cpu(figures) for row, figures in rows.items()}
    faster = {row: 1 / ratio for row, ratio in ratios(rate, OURS).items()}
    against_ours, against_limit = ratios(busy, OURS), ratios(busy, LIMIT)
    lines = [
        (ROWS[row].title, *(shown(figures.get(row), 2) for figures in (faster, against_ours, against_limit)))
        for row in rows
    ]
    columns = (f"{ROWS[OURS].title} is faster, times", "CPU against that, times", "CPU against the plain loop, times")
    return table(("row", *columns), lines)


def _latencies(rows: Mapping[str, Figures]) -> str:
    lines = []
    for row, figures in rows.items():
        for rate, at in figures["rates"].items():
            if "skipped" in at:
                lines.append((ROWS[row].title, rate, at["skipped"], *[""] * 6))
                continue
            told = [shown(at.get(name)) for name in ("p50", "p99", "p99.9", "max", "actions")]
            lines.append((ROWS[row].title, rate, "yes" if at["kept up"] else "no", *told, shown(cpu(at))))
    return table(
        ("row", "events/s", "kept up", "p50", "p99", "p99.9", "max", "actions", "system µs/event"), lines
    )  # fmt: skip


def _faults(rows: Mapping[str, Figures]) -> str:
    columns = (
        "checkpoints", "checkpoint MB", "state MB", "checkpoint s", "first action s", "caught up s", "expected", "lost",
        "duplicated", "unexpected",
    )  # fmt: skip
    lines = [(ROWS[row].title, *(shown(figures.get(name), 1) for name in columns)) for row, figures in rows.items()]
    return table(("row", *columns), lines)


def _of(name: str) -> Callable[[Figures], Any]:
    return lambda figures: figures.get(name)


def draw(folder: Path, results: Results) -> None:
    """``throughput.png``, ``cpu.png``, ``latency.png``, ``progress.png``.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    drains = {part: {row: figures[part] for row, figures in results.items() if part in figures} for part in _TITLES}
    drains = {part: rows for part, rows in drains.items() if rows}
    if drains:
        _bars(folder / "throughput.png", "events/s", drains, lambda figures: {"": figures["events/s"]})
        _bars(folder / "cpu.png", "CPU-µs an event", drains, _cpu_parts)
        _progress(folder / "progress.png", drains)
    loads = {row: figures["load"] for row, figures in results.items() if "load" in figures}
    if loads:
        _latency_plot(folder / "latency.png", loads)


def _cpu_parts(figures: Figures) -> dict[str, float]:
    return {name: figures.get(f"{name} µs/event", 0.0) for name in (*_PROCESSES, "broker", "user API")}


def _bars(
    path: Path, label: str, drains: Mapping[str, Mapping[str, Figures]], parts: Callable[[Figures], dict[str, float]]
) -> None:
    figure, all_axes = pyplot().subplots(1, len(drains), figsize=(6 * len(drains), 4), squeeze=False)
    for axes, (part, rows) in zip(all_axes[0], drains.items(), strict=True):
        names, stacks = list(rows), [parts(figures) for figures in rows.values()]
        left = [0.0] * len(names)
        for key in stacks[0]:
            widths = [stack[key] for stack in stacks]
            axes.barh(names, widths, left=left, label=key)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for place, total in enumerate(left):
            axes.text(total, place, f" {total:,.0f}", va="center", fontsize=8)
        axes.margins(x=0.15)
        axes.invert_yaxis()
        axes.set(xlabel=label, title=_TITLES[part])
        if len(stacks[0]) > 1:
            axes.legend(fontsize=8)
    save(figure, path)


def _progress(path: Path, drains: Mapping[str, Mapping[str, Figures]]) -> None:
    figure, all_axes = pyplot().subplots(1, len(drains), figsize=(6 * len(drains), 4), squeeze=False)
    for axes, (part, rows) in zip(all_axes[0], drains.items(), strict=True):
        for row, figures in rows.items():
            axes.plot(*zip(*figures["samples"], strict=True), label=row)
        axes.set(xlabel="s since submission", ylabel="events handled", title=_TITLES[part])
        axes.legend(fontsize=8)
    save(figure, path)


def _latency_plot(path: Path, loads: Mapping[str, Figures]) -> None:
    from matplotlib import ticker

    figure, all_axes = pyplot().subplots(1, 2, figsize=(12, 4), squeeze=False)
    for axes, part in zip(all_axes[0], ("p50", "p99"), strict=True):
        for row, figures in loads.items():
            points = [(int(rate), at[part]) for rate, at in figures["rates"].items() if at.get(part)]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=row)
        axes.set(xscale="log", yscale="log", xlabel="events/s", ylabel=f"{part}, ms, append to append")
        rates = sorted({int(rate) for figures in loads.values() for rate in figures["rates"]})
        axes.xaxis.set_major_locator(ticker.FixedLocator(rates))
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ticker.ScalarFormatter())
            axis.set_minor_formatter(ticker.NullFormatter())
        axes.legend(fontsize=8)
    save(figure, path)
