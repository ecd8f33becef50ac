"""A dashboard as an HTML page with inline SVG: no scripts, nothing from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Final

from tests.dashboards.panels import STAT, STATES, Panel, Series, clock_ticks, held, runs
from tests.dashboards.units import shown, ticks

WIDTH: Final = 1200
_SPARKLINE: Final = 0.15

# Of Okabe and Ito, to be told apart by everybody; grey and a dark blue where they do not suffice.
_LINES: Final = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#6b7280", "#332288")
_NAMED: Final = {"green": "#1a7f37", "orange": "#c2570c", "red": "#cf222e", "blue": "#0969da", "text": "#24292f"}
_STYLE: Final = """
* { box-sizing: border-box; margin: 0 }
body { background: #f4f5f5; color: #24292f; font: 12px "DejaVu Sans", sans-serif; padding: 12px; width: 1200px }
header { display: flex; align-items: baseline; gap: 16px; margin: 2px 4px 10px }
h1 { font-size: 17px; font-weight: 600 }
header p { color: #57606a }
header p:last-child { margin-left: auto }
main { display: grid; grid-template-columns: repeat(24, 1fr); grid-auto-rows: 22px; gap: 8px }
section { background: #fff; border: 1px solid #dfe1e4; border-radius: 3px; padding: 6px 8px; overflow: hidden;
          display: flex; flex-direction: column; min-width: 0 }
h2 { font-size: 12.5px; font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
     margin-bottom: 6px }
.chart { flex: 1; display: grid; grid-template: minmax(0, 1fr) 15px / auto minmax(0, 1fr); column-gap: 6px;
         min-height: 0; padding-top: 5px }
.y { position: relative; text-align: right; color: #57606a; font-size: 11px; white-space: nowrap }
.y b { visibility: hidden; font-weight: normal; display: block; height: 0 }
.y span { position: absolute; right: 0; transform: translateY(50%) }
.rows { display: flex; flex-direction: column; justify-content: space-around; white-space: nowrap }
.rows.bars { align-items: stretch; border-left: 1px solid #e4e6e9 }
.bar { position: relative; height: 60%; max-height: 22px }
.bar i { position: absolute; top: 0; bottom: 0; opacity: .75 }
.plot { position: relative; border-bottom: 1px solid #b6bbc1 }
.plot u { position: absolute; left: 0; right: 0; border-top: 1px solid #eceef0 }
.plot svg, .tile svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible }
path { stroke-width: 1.5; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round }
.x { grid-column: 2; position: relative; color: #57606a; font-size: 11px }
.x span { position: absolute; transform: translateX(-50%); top: 2px }
ul { list-style: none; padding: 5px 0 0; display: flex; flex-wrap: wrap; gap: 1px 12px; font-size: 11.5px }
li { white-space: nowrap }
li i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; vertical-align: middle; margin-right: 5px }
.empty { flex: 1; display: grid; place-items: center; color: #57606a }
.tiles { flex: 1; display: flex; gap: 6px; min-height: 0 }
.tile { flex: 1; position: relative; display: flex; flex-direction: column; align-items: center;
        justify-content: center; white-space: nowrap }
.tile.lined { justify-content: flex-start; padding-top: 2px }
.tile b { font-size: 23px; font-weight: 600; line-height: 1.25 }
.tile small { font-size: 11.5px; color: #57606a }
.tile svg { top: 58%; height: 42% }
"""


@dataclass(frozen=True)
class Shown:
    """The time that is shown, Unix seconds, and how far apart answers are."""

    start: float
    end: float
    step_s: float

    def across(self, at: float) -> float:
        """Where a time lies, 0 to 100."""
        return 100 * (at - self.start) / (self.end - self.start)


def page(title: str, note: str, drawn: Sequence[tuple[Panel, Sequence[Series]]], time: Shown) -> str:
    """The page; ``note`` says where it comes from."""
    sections = "\n".join(_section(panel, lines, time) for panel, lines in drawn)
    period = f"{_clock(time.start)} to {_clock(time.end)} UTC"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<header><h1>{escape(title)}</h1><p>{escape(note)}</p><p>{period}</p></header><main>{sections}</main></html>"
    )


def _section(panel: Panel, lines: Sequence[Series], time: Shown) -> str:
    x, y, width, height = panel.grid
    area = f"grid-area: {y + 1} / {x + 1} / span {height} / span {width}"
    if not lines:
        body = f'<div class="empty">{escape(panel.if_empty)}</div>'
    else:
        body = {STAT: _tiles, STATES: _states}.get(panel.kind, _lines)(panel, lines, time)
    return f'<section style="{area}"><h2>{escape(panel.title)}</h2>{body}</section>'


def _lines(panel: Panel, lines: Sequence[Series], time: Shown) -> str:
    highest = max(value for line in lines for _, value in line.points)
    marks = ticks(panel.maximum if panel.maximum is not None else highest, panel.unit)
    top, step = marks[-1], marks[1]
    labels = [(100 * mark / top, shown(mark, panel.unit, step)) for mark in marks]
    widest = max((text for _, text in labels), key=len)
    axis = "".join(f'<span style="bottom: {at:.2f}%">{escape(text)}</span>' for at, text in labels)
    grid = "".join(f'<u style="bottom: {at:.2f}%"></u>' for at, _ in labels[1:])
    colours = _colours(lines)
    drawn = "".join(_line(line.points, colours[line.name], panel.fill, top, time) for line in lines)
    legend = "".join(f'<li><i style="background: {colours[line.name]}"></i>{escape(line.name)}</li>' for line in lines)
    return (
        f'<div class="chart"><div class="y"><b>{escape(widest)}</b>{axis}</div>'
        f'<div class="plot">{grid}{_svg(drawn)}</div>{_times(panel, time)}</div><ul>{legend}</ul>'
    )


def _line(points: Sequence[tuple[float, float]], colour: str, fill: float, top: float, time: Shown) -> str:
    found = []
    for run in runs(points, time.step_s):
        way = " ".join(f"{time.across(at):.2f},{100 - 100 * value / top:.2f}" for at, value in run)
        first, last = time.across(run[0][0]), time.across(run[-1][0])
        if fill:
            found.append(f'<path fill="{colour}" fill-opacity="{fill}" d="M{first:.2f},100 {way} {last:.2f},100Z"/>')
        # The last, empty stroke makes a dot of a single point.
        found.append(f'<path fill="none" stroke="{colour}" d="M{way}h0"/>')
    return "".join(found)


def _states(panel: Panel, lines: Sequence[Series], time: Shown) -> str:
    names = "".join(f"<span>{escape(line.name)}</span>" for line in lines)
    bars, seen = [], set()
    for line in lines:
        pieces = []
        for start, end, value in held(line.points, time.step_s):
            seen.add(value)
            left, width = time.across(start), time.across(end) - time.across(start)
            colour = _NAMED[panel.colour(value)]
            pieces.append(f'<i style="left: {left:.2f}%; width: {width:.2f}%; background: {colour}"></i>')
        bars.append(f'<div class="bar">{"".join(pieces)}</div>')
    legend = "".join(
        f'<li><i style="background: {_NAMED[panel.colour(value)]}"></i>{escape(_text(panel, value))}</li>'
        for value in sorted(seen)
    )
    return (
        f'<div class="chart"><div class="rows">{names}</div><div class="rows bars">{"".join(bars)}</div>'
        f"{_times(panel, time)}</div><ul>{legend}</ul>"
    )


def _tiles(panel: Panel, lines: Sequence[Series], time: Shown) -> str:
    tiles = []
    for line in lines:
        last = line.points[-1][1]
        colour = _NAMED[panel.colour(last)]
        highest = max(value for _, value in line.points)
        sparkline = _svg(_line(line.points, colour, _SPARKLINE, highest or 1, time)) if panel.sparkline else ""
        name = f"<small>{escape(line.name)}</small>" if len(lines) > 1 else ""
        text = escape(_text(panel, last))
        lined = " lined" if panel.sparkline else ""
        tiles.append(f'<div class="tile{lined}">{sparkline}<b style="color: {colour}">{text}</b>{name}</div>')
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _text(panel: Panel, value: float) -> str:
    mapped: Mapping[float, tuple[str, str]] = panel.mappings or {}
    return mapped[value][0] if value in mapped else shown(value, panel.unit)


def _colours(lines: Sequence[Series]) -> dict[str, str]:
    return {line.name: _LINES[number % len(_LINES)] for number, line in enumerate(lines)}


def _svg(drawn: str) -> str:
    return f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{drawn}</svg>'


def _times(panel: Panel, time: Shown) -> str:
    marks = clock_ticks(time.start, time.end, panel.grid[2] // 2 + 2)
    spans = (f'<span style="left: {time.across(at):.2f}%">{_clock(at)}</span>' for at in marks)
    return f'<div class="x">{"".join(spans)}</div>'


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M")
