"""docs/reliability.md shows the figures of the last run, which passed, and the tests that show the rest."""

from __future__ import annotations

import ast
import json
import re

from tests.faults.report import PAGE, RESULTS, expected
from tests.integration.jobs import ROOT

CATALOGUE = {f"F{number}" for number in range(1, 36)}
FIGURES = json.loads(RESULTS.read_text())


def test_the_table_is_the_one_of_the_figures() -> None:
    text = PAGE.read_text()

    assert text == expected(text, FIGURES), "run python -m tests.faults.report"


def test_nothing_was_lost_or_counted_twice() -> None:
    for result in FIGURES.values():
        verdict = result["verdict"]
        assert (verdict["lost"], verdict["duplicated"], verdict["order_inversions"]) == (0, 0, 0)
        assert verdict["problems"] == []


def test_every_fault_of_the_catalogue_has_its_figures_or_tests() -> None:
    text = PAGE.read_text()
    by_tests = re.findall(r"^\| (F\d+) \|.*`tests/", text, re.MULTILINE)
    not_yet = re.findall(r"F\d+", "".join(re.findall(r"^Not yet run to its end: (.*)", text, re.MULTILINE)))

    assert {*FIGURES, *by_tests, *not_yet} == CATALOGUE
    assert set(FIGURES).isdisjoint(not_yet)


def test_the_tests_that_are_named_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())

    assert len(named) >= 10
    for path, name in named:
        nodes = ast.parse((ROOT / path).read_text()).body
        tests = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        assert name in tests, f"{path} has no {name}"
