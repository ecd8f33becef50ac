"""The page that is drawn: its texts and where its lines lie."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.dashboards.page import Shown, page
from tests.dashboards.panels import Panel, Series

TIME = Shown(600, 700, 2)


class Reader(HTMLParser):
    """Texts, paths and styles of a page, and that every element ends."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.paths: list[dict[str, Any]] = []
        self.styles: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        if tag == "path":
            self.paths.append(given)
        elif tag != "meta":
            self.open.append(tag)
        if given.get("style"):
            self.styles.append(str(given["style"]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.texts.append(data.strip())


def a_panel(**fields: Any) -> Panel:
    given = {
        "id": 1, "kind": "timeseries", "title": "Time <b>", "grid": (0, 0, 12, 8), "unit": "ms", "maximum": None,
        "fill": 0.1, "sparkline": False, "if_empty": "Nothing", "queries": (),
    }  # fmt: skip
    return Panel(**(given | fields))


def read(panel: Panel, *lines: Series) -> Reader:
    found = Reader(page("A & B", "of a test", [(panel, lines)], TIME))
    assert found.open == []
    assert found.tags.isdisjoint({"script", "link", "img", "iframe"})
    return found


def test_lines_lie_where_their_values_are() -> None:
    found = read(a_panel(), Series("p50", ((600, 0), (602, 20))), Series("p99", ((650, 40), (690, 10))))
    lines = [path["d"] for path in found.paths if path["fill"] == "none"]
    # The axis ends at 40 ms; y counts from above.
    assert lines == [
        "M0.00,100.00 2.00,50.00h0",
        "M50.00,0.00h0",
        "M90.00,75.00h0",
    ]
    areas = [path["d"] for path in found.paths if path["fill"] != "none"]
    assert areas[0] == "M0.00,100 0.00,100.00 2.00,50.00 2.00,100Z"
    assert {path["stroke"] for path in found.paths if "stroke" in path} == {"#0072b2", "#e69f00"}


def test_a_panel_shows_title_axis_times_and_legend() -> None:
    found = read(a_panel(), Series("p50 <i>", ((600, 3), (602, 40))))
    assert "A & B" in found.texts
    assert "of a test" in found.texts
    assert "00:10 to 00:11 UTC" in found.texts
    section = found.texts[found.texts.index("Time <b>") :]
    assert section == ["Time <b>", "10 ms", "0 ms", "10 ms", "20 ms", "30 ms", "40 ms", "00:10", "00:11", "p50 <i>"]
    assert "grid-area: 1 / 1 / span 8 / span 12" in found.styles


def test_an_axis_ends_at_the_maximum_that_the_panel_names() -> None:
    found = read(a_panel(unit="percentunit", maximum=1), Series("hits", ((600, 0.25),)))
    assert [path["d"] for path in found.paths if path["fill"] == "none"] == ["M0.00,75.00h0"]
    assert "100%" in found.texts


def test_a_panel_without_data_says_so() -> None:
    assert read(a_panel()).texts[-1] == "Nothing"


def test_a_stat_shows_the_last_value_in_the_colour_of_its_threshold() -> None:
    thresholds = ((float("-inf"), "green"), (1000.0, "red"))
    found = read(a_panel(kind="stat", thresholds=thresholds), Series("p99", ((600, 20), (602, 1500))))
    assert found.texts[-1] == "1.5 s"
    assert "color: #cf222e" in found.styles
    assert found.paths == []
    both = read(
        a_panel(kind="stat", sparkline=True, thresholds=thresholds),
        Series("a", ((600, 1),)),
        Series("b", ((600, 2),)),
    )
    assert both.texts[-4:] == ["1 ms", "a", "2 ms", "b"]
    assert len(both.paths) == 4


@pytest.mark.parametrize("kind", ["stat", "state-timeline"])
def test_mapped_values_have_names(kind: str) -> None:
    mappings = {0.0: ("no", "green"), 1.0: ("yes", "red")}
    found = read(a_panel(kind=kind, mappings=mappings), Series("crm", ((600, 0), (602, 0), (604, 1), (606, 1))))
    assert "yes" in found.texts
    assert ("no" in found.texts) is (kind == "state-timeline")
    if kind == "state-timeline":
        assert "crm" in found.texts
        bars = [style for style in found.styles if "width" in style]
        assert bars == [
            "left: 0.00%; width: 4.00%; background: #1a7f37",
            "left: 4.00%; width: 2.00%; background: #cf222e",
        ]


def test_lines_of_a_panel_can_be_told_apart() -> None:
    found = read(a_panel(fill=0), *(Series(f"line {number}", ((600, number),)) for number in range(8)))
    assert len({path["stroke"] for path in found.paths}) == 8
    assert len({style for style in found.styles if re.match(r"background: #", style)}) == 8
