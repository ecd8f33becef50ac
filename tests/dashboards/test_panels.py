"""Panels as the JSON says; lines as Prometheus answers."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from tests.dashboards.panels import BoardError, Panel, Series, clock_ticks, held, panels, range_query, runs, series
from tests.monitoring import BOARDS

STATES: dict[str, Any] = {
    "id": 4,
    "type": "state-timeline",
    "title": "Breaker",
    "gridPos": {"h": 8, "w": 12, "x": 12, "y": 3},
    "fieldConfig": {
        "defaults": {
            "noValue": "None",
            "thresholds": {"steps": [{"color": "green", "value": None}, {"color": "red", "value": 5}]},
            "mappings": [{"type": "value", "options": {"0": {"text": "no", "color": "blue"}}}],
        }
    },
    "options": {},
    "targets": [{"expr": 'rate(x{job_name=~"$job"}[$__rate_interval]) / y[$__range]', "legendFormat": "all"}],
}


def the_panel(**changes: Any) -> Panel:
    (found,) = panels({"panels": [copy.deepcopy(STATES) | changes]})
    return found


@pytest.mark.parametrize("name", BOARDS)
def test_all_of_every_dashboard_can_be_drawn_and_no_panel_covers_another(name: str) -> None:
    drawn = panels(BOARDS[name])
    assert [panel.title for panel in drawn] == [panel["title"] for panel in BOARDS[name]["panels"]]
    cells = [
        {(x, y) for x in range(left, left + width) for y in range(top, top + height)}
        for left, top, width, height in (panel.grid for panel in drawn)
    ]
    assert all(not cell & other for cell, other in itertools.combinations(cells, 2))
    # Nor are there holes, but where a row ends.
    assert sum(map(len, cells)) == 24 * max(y + 1 for cell in cells for _, y in cell)


def test_a_panel_has_what_its_json_says() -> None:
    panel = the_panel()
    assert (panel.kind, panel.title, panel.grid, panel.unit) == ("state-timeline", "Breaker", (12, 3, 12, 8), "short")
    assert panel.if_empty == "None"
    assert [panel.colour(value) for value in (0, 1, 5, 9)] == ["blue", "green", "red", "red"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "gauge"}, "panel 'Breaker' has type 'gauge'; drawn are stat, state-timeline, timeseries"),
        ({"fieldConfig": {"defaults": {"unit": "lux"}}}, "panel 'Breaker' has unit 'lux'; drawn are binBps, "),
        ({"gridPos": {"h": 8, "w": 13, "x": 12, "y": 0}}, "panel 'Breaker' has right edge 25; drawn are 0, 1"),
    ],
)
def test_what_is_not_drawn_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BoardError) as error:
        the_panel(**changes)
    assert str(error.value).startswith(message)


def test_a_query_is_asked_as_grafana_does() -> None:
    (_, query) = the_panel().queries[0]
    assert range_query(query, step_s=2, scrape_s=2, range_s=480) == 'rate(x{job_name=~".*"}[8s]) / y[480s]'
    assert range_query(query, step_s=60, scrape_s=15, range_s=480) == 'rate(x{job_name=~".*"}[75s]) / y[480s]'


def test_lines_are_named_by_the_legend_and_have_no_nan() -> None:
    answer = [
        {"metric": {"rule": "b"}, "values": [[10, "1"], [12, "NaN"], [14, "2.5"]]},
        {"metric": {"rule": "a"}, "values": [[10, "+Inf"], [12, "0"]]},
        {"metric": {"rule": "c"}, "values": [[10, "NaN"]]},
    ]
    assert series("{{rule}} fired {{ n }}", answer) == [
        Series("a fired n", ((12.0, 0.0),)),
        Series("b fired n", ((10.0, 1.0), (14.0, 2.5))),
    ]


def test_a_line_has_a_gap_where_points_are_missing() -> None:
    points = [(0.0, 1.0), (2.0, 1.0), (6.0, 3.0), (8.0, 3.0), (20.0, 5.0)]
    assert list(runs(points, 2)) == [points[:2], points[2:4], points[4:]]
    assert list(runs([], 2)) == []


def test_a_state_holds_until_the_next_one_or_the_gap() -> None:
    points = [(0.0, 0.0), (2.0, 0.0), (4.0, 1.0), (6.0, 1.0), (8.0, 0.0), (20.0, 0.0), (22.0, 0.0)]
    assert list(held(points, 2)) == [(0.0, 4.0, 0.0), (4.0, 8.0, 1.0), (8.0, 8.0, 0.0), (20.0, 22.0, 0.0)]


@pytest.mark.parametrize(
    ("start", "end", "most", "minutes"),
    [(30, 330, 6, [1, 2, 3, 4, 5]), (30, 510, 6, [2, 4, 6, 8]), (0, 3600, 6, [0, 10, 20, 30, 40, 50, 60])],
)
def test_times_are_full_minutes(start: float, end: float, most: int, minutes: list[int]) -> None:
    assert clock_ticks(start, end, most) == [60 * minute for minute in minutes]
