"""Draws docs/images/ui.png, the page over a shop's job: ``python -m tests.pipeline.ui.screenshot``."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import chromium
from tests.builders import NOW_MS, rule
from tests.pipeline.ui.pages import GivenJob, serving, snapshot
from transforms.domain.rules.sets import RuleSet

PICTURE = Path(__file__).parents[3] / "docs" / "images" / "ui.png"
RULES = ("welcome", "win_back", "offer", "cart_left", "fraud_hint")
COUNTS = {
    "welcome": (930, 310, 0),
    "win_back": (184, 96, 0),
    "offer": (412, 120, 0),
    "cart_left": (61, 44, 0),
    "fraud_hint": (9, 9, 3),
}


def a_job() -> GivenJob:
    counters = {"events_handled": 148_000, "actions": 579, "dead_letters": 4, "shard__0__users": 18_412}
    for name, (allowed, fired, errors) in COUNTS.items():
        counters |= {f"rule__{name}__allowed": allowed, f"rule__{name}__fired": fired, f"rule__{name}__error": errors}
    for bound, count in (("25", 240), ("50", 530), ("100", 575), ("250", 579), ("inf", 579)):
        counters[f"latency_ms_le_{bound}"] = count
    counters |= {"action__webhook__crm__delivered": 452, "action__webhook__crm__retried": 6}
    counters |= {"action__webhook__ads__delivered": 96, "destination__ads__breaker_open": 1}
    rules = tuple(rule(name, version=number) for number, name in enumerate(RULES, 1))
    return GivenJob(
        rules=RuleSet(12, rules, NOW_MS, "ann", "cart_left waits half an hour"),
        snapshots=[snapshot(0), snapshot(60, **counters)],
    )


if __name__ == "__main__":
    with (
        serving(a_job()) as url,
        tempfile.TemporaryDirectory() as folder,
        chromium(Path(folder), 1280, 1100) as browser,
    ):
        browser.get(url)
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        height = browser.execute_script(
            "return document.querySelector('main').lastElementChild.getBoundingClientRect().bottom"
        )
        picture = picture.crop((0, 0, picture.width, min(picture.height, int(height) + 24)))
        PICTURE.parent.mkdir(exist_ok=True)
        picture.quantize(256, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
