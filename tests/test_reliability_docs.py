"""docs/reliability.md shows the figures of the last run, all of them good."""

from __future__ import annotations

import json

from tests.faults.report import PAGE, RESULTS, expected

FIGURES = json.loads(RESULTS.read_text())


def test_the_table_is_the_one_of_the_figures() -> None:
    text = PAGE.read_text()

    assert text == expected(text, FIGURES), "run python -m tests.faults.report"


def test_nothing_was_lost_or_counted_twice() -> None:
    for one in FIGURES.values():
        verdict = one["verdict"]
        assert (verdict["lost"], verdict["duplicated"], verdict["order_inversions"]) == (0, 0, 0)
        assert verdict["problems"] == []
