"""Draws docs/images/ui*.png, the page over a shop's job: ``python -m tests.pipeline.ui.screenshot``.

With a folder as argument it draws every page at both widths and in both themes into it, to look at.
"""

from __future__ import annotations

import io
import itertools
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image
from selenium.webdriver import Chrome

from pipeline.job.snapshot import JobSnapshot
from pipeline.job.stored_letters import StoredLetter
from tests.browser import chromium
from tests.builders import NOW_MS, Shard, batch, event, fetched, rule
from tests.pipeline.ui.pages import GivenJob, serving, snapshot
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import Decision
from transforms.domain.shard.step_input import Answer

PICTURES = Path(__file__).parents[3] / "docs" / "images"
WIDTHS = (390, 1400)
COUNTS = {
    "welcome": (930, 310, 0),
    "win_back": (184, 96, 0),
    "offer": (412, 120, 0),
    "cart_left": (61, 44, 0),
    "fraud_hint": (9, 9, 3),
}
PAGES = {
    "overview": "/",
    "rules": "/rules",
    "rule": "/rules/offer",
    "sets": "/rule-sets",
    "decisions": "/decisions",
    "nothing": "/decisions?rule=ofer&outcome=capped",
    "letters": "/dead-letters",
    "letter": "/dead-letters/0/3",
    "user": "/user?user_id=8f14e45f-ceea-467f-9b2c-0a1d7c1f6a11",
    "look-up": "/user",
}
USER = "8f14e45f-ceea-467f-9b2c-0a1d7c1f6a11"
_BOUNDS = (("25", 0.4), ("50", 0.9), ("100", 0.99), ("250", 1.0), ("500", 1.0), ("inf", 1.0))


def a_job() -> GivenJob:
    """A shop's job with everything that the pages can show."""
    rules = tuple(
        rule(name, "event.cart_value > 50", version=number, cooldown="1d", description=f"Rule {number} of the shop.")
        for number, name in enumerate(COUNTS, 1)
    )
    slower = tuple(
        made.model_copy(update={"version": made.version + 1}) if made.name == "offer" else made for made in rules
    )
    longer = rule("offer", "event.cart_value > 80\nand user.plan ~= 'gold'", version=3, cooldown="2d")
    sets = [
        RuleSet(10, rules[:4], NOW_MS - 90_000_000, "ann@desk", "four rules of the old shop"),
        RuleSet(11, (*rules[:2], longer, *rules[3:]), NOW_MS - 5_000_000, "bob@desk", "offers are rarer"),
        RuleSet(12, slower, NOW_MS - 1_500_000, "ann@desk", "offers as they were, but for version 4"),
    ]
    return GivenJob(
        sets=sets,
        snapshots=list(_snapshots()),
        log=list(_decisions()),
        dead={stored.place: stored for stored in _letters()},
        users={USER: _user()},
    )


def _snapshots() -> list[JobSnapshot]:
    """Fifty minutes, with a restart, a new set and a breaker."""
    found, handled, actions, letters = [], 0.0, 0.0, 0
    for number in range(601):
        seconds, is_new_run = 5 * number, number == 260
        if is_new_run:
            handled = actions = 0.0
        wave = 1 + 0.3 * math.sin(number / 60)
        is_failing = 440 <= number < 480
        handled, actions = handled + 200 * wave, actions + 12 * wave
        letters += 2 if is_failing and number % 4 == 0 else 0
        counters = {
            "events": round(handled),
            "events_handled": round(handled),
            "actions": round(actions),
            "dead_letters": letters,
        }
        counters |= {
            "shard__0__users": 18_412,
            "rule_set": 12 if number > 300 else 11,
            "state_hits": 970,
            "state_misses": 31,
            "partition__0__time_behind_ms": 140,
            "partition__0__time_hold": 0,
        }
        counters |= {"user_api_calls": number, "user_api_call_errors": 0, "user_api_breaker_open": 0}
        for bound, share in _BOUNDS:
            counters[f"latency_ms_le_{bound}"] = round(actions * share)
        counters["latency_ms_le_1000"] = counters["latency_ms_le_2500"] = counters["latency_ms_le_inf"]
        counters["latency_ms_le_5000"] = counters["latency_ms_le_10000"] = counters["latency_ms_le_inf"]
        for name, (allowed, fired, errors) in COUNTS.items():
            share = number / 600
            counters |= {f"rule__{name}__allowed": round(allowed * share), f"rule__{name}__fired": round(fired * share)}
            counters[f"rule__{name}__error"] = round(errors * share)
        counters |= {"action__webhook__crm__delivered": round(actions * 0.8), "action__webhook__crm__retried": 6}
        counters |= {"action__webhook__ads__delivered": round(actions * 0.1), "action__webhook__ads__given_up": letters}
        counters |= {"destination__ads__breaker_open": int(is_failing), "destination__crm__breaker_open": 0}
        taken = snapshot(seconds, **counters)
        completed = {"end_to_end_duration": 280 + (number * 37) % 90, "state_size": 5_000_000}
        completed["latest_ack_timestamp"] = 96_000 + 30 * (number // 6)
        checkpoints = {"counts": {"completed": number // 6, "failed": 0}, "latest": {"completed": completed}}
        lag = 900 - 9 * (number - 260) if 260 <= number < 360 else (number * 7) % 23
        found.append(replace(taken, checkpoints=checkpoints, restarts=int(number >= 260), lag=lag))
    return found


def _decisions() -> list[Decision]:
    kinds = itertools.cycle(("fired", "delivered", "cooled_down", "fired", "capped", "delivered", "retried"))
    names, users = itertools.cycle(COUNTS), itertools.cycle((USER, "u-17", "anna@example.com"))
    details = {"cooled_down": "until 2024-01-02T09:00:00.000Z", "capped": "3 in 7d", "retried": "status: 503"}
    return [
        Decision(
            decision=kind, time=NOW_MS - 41_000 * number, event_time=NOW_MS - 41_000 * number - 60, user_id=user,
            event_id=f"01HKZ7Q8Z3X5C9V1B2N4M6{number:04}", event_name="page_view", rule=name, version=3,
            detail=details.get(kind), action="webhook", action_id=f"{number:032x}", destination="crm",
        )
        for number, kind, name, user in zip(range(140), kinds, names, users, strict=False)
    ]  # fmt: skip


def _letters() -> list[StoredLetter]:
    body = b'{"event": {"event_id": "e-1"}}'
    lost = LostAction("9f1c" * 8, 2, "webhook", "ads", USER, "e-1", body, NOW_MS - 9000, 9, 503)
    mismatch, nil = "user_id is 'u-18', the record's key 'u-17'", "fraud_hint:1: attempt to compare nil with number"
    at = ("events", 2, 71_234, NOW_MS)
    letters = [
        DeadLetter("undelivered", "HTTP 503 for 2 h", *("", -1, -1, 9, USER.encode(), b""), rule="offer", action=lost),
        DeadLetter("key_mismatch", mismatch, *at, b"u-17", b"{}"),
        DeadLetter("not_json", "expected value at line 1 column 1", *at, b"u-4", b"page_view;u-4;12"),
        DeadLetter("rule_error", nil, *at, b"u-4", b"{}", rule="fraud_hint"),
    ]  # fmt: skip
    return [StoredLetter(0, number, NOW_MS - 97_000 * number, letters[number % 4]) for number in range(1, 41)]


def _user() -> dict[str, object]:
    shard = Shard(rule("offer", cap={"count": 3, "window": "7d"}), history_fields=("page",))
    profile = {"profile": {"country": "US", "plan": "gold", "tags": ["a", "b"]}, "visit": None, "history": []}
    shard.step(batch(event(USER, event_id="01HKZ7Q8Z3X5C9V1B2N4M60000", event_name="page_view", page="/cart")))
    shard.step(answers=[Answer(USER, fetched(profile))])
    shard.step(batch(event(USER, event_id="e-2", event_name="checkout", page="/checkout/a-very-long-path/of-a-shop")))
    return shard.inspect(USER)


def full_page(browser: Chrome, width: int, dark: bool = False) -> Image.Image:
    """The shown page in full length at a width."""
    measure = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", measure)
    height = min(6000, int(browser.execute_script("return document.documentElement.scrollHeight")))
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", measure | {"height": height})
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def main(arguments: list[str]) -> None:
    """Draw the pictures."""
    with serving(a_job()) as url, tempfile.TemporaryDirectory() as folder, chromium(Path(folder), 1400, 900) as browser:
        if arguments:
            for (name, path), width, dark in itertools.product(PAGES.items(), WIDTHS, (False, True)):
                browser.get(url + path)
                full_page(browser, width, dark).save(Path(arguments[0]) / f"{name}-{width}{'-dark' * dark}.png")
            return
        for picture, path in (("ui", "/"), ("ui-rule", "/rules/offer"), ("ui-user", PAGES["user"])):
            browser.get(url + path)
            drawn = full_page(browser, 1280)
            drawn.crop((0, 0, drawn.width, min(drawn.height, 1250))).quantize(256, dither=Image.Dither.NONE).save(
                PICTURES / f"{picture}.png", optimize=True
            )


if __name__ == "__main__":
    main(sys.argv[1:])
