"""Draws docs/images/dashboard-*.png from the dashboards' JSON and a real Prometheus' answers; ``make dashboards``.

No Grafana: panels lie where their JSON says, ask what it says, and have its titles, units and legends. The Prometheus
watches a shop's job on real Kafka and Flink for some minutes, in which some things go wrong. Its answers stay in
build/dashboards.json, so that ``--again`` draws without running anything.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import requests
from PIL import Image
from selenium.webdriver import Chrome

from runners.flink.local.monitoring import SCRAPE_EVERY_S
from tests.browser import chromium
from tests.dashboards.page import WIDTH, Shown, page
from tests.dashboards.panels import panels, range_query, series
from tests.dashboards.shop import happen, open_shop
from tests.monitoring import BOARDS
from tests.waiting import eventually

_ROOT: Final = Path(__file__).parents[2]
_IMAGES: Final = _ROOT / "docs" / "images"
_KEPT: Final = _ROOT / "build" / "dashboards.json"
_LONGEST_PAGE: Final = 3000


def main() -> int:
    """Watch the job, unless that is done; draw."""
    parser = argparse.ArgumentParser(prog="python -m tests.dashboards", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8, help="of the job to watch (default: 8)")
    parser.add_argument("--again", action="store_true", help=f"draw what {_KEPT.relative_to(_ROOT)} holds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder), WIDTH, _LONGEST_PAGE) as browser:
        if not arguments.again:
            _KEPT.parent.mkdir(exist_ok=True)
            _KEPT.write_text(json.dumps(_watch(arguments.minutes, browser)))
        kept = json.loads(_KEPT.read_text())
        for name in BOARDS:
            _draw(name, kept, Path(folder), browser)
    return 0


def _watch(minutes: float, browser: Chrome) -> dict[str, Any]:
    """What Prometheus answers to every query of every panel; on the way a picture of its alerts."""
    with tempfile.TemporaryDirectory() as folder, open_shop(Path(folder)) as (shop, prometheus):
        start, end = happen(shop, minutes)
        browser.get(prometheus.page("alerts"))
        eventually(lambda: "DestinationDisabled" in browser.page_source, "Prometheus' page of alerts", 30)
        # Debian's page: the first alert that fires opens, with what it is about.
        browser.execute_script("document.querySelector('.alert_header.alert-danger')?.click()")
        browser.execute_script("document.querySelector('.show-annotations')?.click()")
        _save(browser, "alerts")
        return {
            "start": start,
            "end": end,
            "boards": {name: _answers(name, prometheus.url, start, end) for name in BOARDS},
        }


def _answers(name: str, url: str, start: float, end: float) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for panel in panels(BOARDS[name]):
        found[panel.id] = []
        for _, query in panel.queries:
            expression = range_query(query, SCRAPE_EVERY_S, SCRAPE_EVERY_S, round(end - start))
            given = {"query": expression, "start": start, "end": end, "step": SCRAPE_EVERY_S}
            answer = requests.get(f"{url}/api/v1/query_range", params=given, timeout=30).json()
            assert answer["status"] == "success", (panel.title, answer)
            found[panel.id].append(answer["data"]["result"])
    return found


def _draw(name: str, kept: dict[str, Any], folder: Path, browser: Chrome) -> None:
    drawn = []
    for panel in panels(BOARDS[name]):
        answers = kept["boards"][name][str(panel.id)]
        pairs = zip(panel.queries, answers, strict=True)
        drawn.append((panel, [line for (legend, _), answer in pairs for line in series(legend, answer)]))
    note = f"drawn from dashboards/{name}.json and what Prometheus answered, not by Grafana"
    file = folder / f"{name}.html"
    file.write_text(page(BOARDS[name]["title"], note, drawn, Shown(kept["start"], kept["end"], SCRAPE_EVERY_S)))
    browser.get(file.as_uri())
    _save(browser, f"dashboard-{name}")


def _save(browser: Chrome, name: str) -> None:
    """What the browser shows, down to the end of the page."""
    height = browser.execute_script("return Math.ceil(document.documentElement.getBoundingClientRect().height)")
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB").crop((0, 0, WIDTH, height))
    file = _IMAGES / f"{name}.png"
    picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.relative_to(_ROOT)}  {picture.width} x {picture.height}  {file.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    sys.exit(main())
