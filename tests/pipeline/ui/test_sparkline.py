"""Paths and words of small charts."""

from __future__ import annotations

import pytest

from pipeline.ui.sparkline import HEIGHT, WIDTH, Mark, Sparkline, area_path, line_path, number


def test_a_line_goes_from_left_to_right_and_the_highest_value_is_at_the_top() -> None:
    assert line_path([0, 5, 10], 10) == "M100.0 58.0L300.0 30.0L500.0 2.0"
    assert area_path([0, 10], 10) == f"M150.0 {HEIGHT}L150.0 58.0L450.0 2.0L450.0 {HEIGHT}Z"


def test_a_gap_parts_the_line_and_a_lone_value_is_a_dot() -> None:
    assert line_path([None, 1, None, 1, 1, None], 1).count("M") == 2
    assert line_path([1, None], 1) == "M150.0 2.0L150.0 2.0"
    assert area_path([1, None], 1) == ""
    assert line_path([None, None], 0) == ""


def test_zeros_are_a_line_at_the_bottom() -> None:
    assert line_path([0, 0], 0) == "M150.0 58.0L450.0 58.0"


def test_two_lines_share_a_scale() -> None:
    chart = Sparkline("Latency", " ms", {"p50": [1, 2], "p99": [8, 4]})
    assert chart.highest == 8
    assert chart.paths == [line_path([1, 2], 8), line_path([8, 4], 8)]
    assert chart.description == "the last hour: p50 1 to 2, last 2 ms; p99 4 to 8, last 4 ms"


def test_a_chart_says_in_words_what_it_shows() -> None:
    chart = Sparkline("Events", "/s", {"events": [None, 3, 40.25, None]}, [Mark(0.5, "rule set 4 is live")])
    assert chart.description == "the last hour: 3 to 40.2, last 40.2/s. Marks: rule set 4 is live"
    assert chart.marks[0].x == WIDTH / 2
    empty = Sparkline("Events", "/s", {"events": [None]})
    assert (empty.description, empty.is_empty) == ("the last hour: nothing seen yet", True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0"),
        (3, "3"),
        (0.0333, "0.033"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (999.6, "1,000"),
        (12_345, "12,345"),
    ],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text
