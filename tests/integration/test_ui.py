"""The page of a real job, in a real browser: rules with matches, an action and why, a redriven letter, a user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import yaml
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from tests.browser import chromium, follow
from tests.builders import event
from tests.integration.jobs import ROOT, Topics, reading, running
from tests.receiver import SECRET, Receiver, receiving

pytestmark = [pytest.mark.stack, pytest.mark.browser]

TOKEN = "correct-horse-battery-staple-7"
USERS = 6


def launch_options(folder: Path, topics: Topics, receiver: Receiver) -> list[str]:
    """A rule whose webhooks go to the receiver, a decision log, a control topic."""
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    crm = {"name": "crm", "url": f"{receiver.url}/crm", "secrets": [f"file:{folder / 'secret'}"]}
    (folder / "destinations.yaml").write_text(yaml.safe_dump({"destinations": [crm]}))
    rule = {"name": "offer", "version": 3, "filter": "event.amount > 10", "cap": {"count": 1, "window": "1h"}}
    rule |= {"actions": [{"type": "webhook", "destination": "crm"}], "on_missing_profile": "run"}
    (folder / "rules").mkdir()
    (folder / "rules" / "offer.yaml").write_text(yaml.safe_dump(rule))
    return [
        f"--decisions_topic=decisions-{topics.tag}",
        f"--control_topic={topics.control}",
        f"--destinations={folder / 'destinations.yaml'}",
        "--allow_private_destinations",
        "--checkpointing_interval_ms=1000",
        "--starting_offsets=earliest",
    ]


@contextmanager
def page(*options: str) -> Iterator[str]:
    """``python -m pipeline ui`` on a free port, ended with Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "ui", "--port=0", "--token=env:UI_TOKEN", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "UI_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(30)


def rows(browser: Chrome) -> list[str]:
    return [" ".join(row.text.split()) for row in browser.find_elements(By.CSS_SELECTOR, "tbody tr")]


def decided(browser: Chrome) -> list[str]:
    """The decision column of a table, which follows the time."""
    return [row.split(" ")[4] for row in rows(browser)]


def open_until(browser: Chrome, url: str, is_complete: Callable[[list[str]], bool], deadline_s: float) -> None:
    """Reload a page until its rows are complete. Fails with the rows shown."""
    give_up = time.monotonic() + deadline_s
    while True:
        browser.get(url)
        if is_complete(rows(browser)):
            return
        assert time.monotonic() < give_up, browser.find_element(By.TAG_NAME, "main").text
        time.sleep(0.2)


def test_a_job_s_page(kafka: LocalKafka, flink: LocalFlink, tmp_path: Path) -> None:
    topics = Topics(kafka)
    kafka.create_topic(f"decisions-{topics.tag}", 2)
    now_ms = time.time_ns() // 1_000_000  # caps are of event time: one of last year would be over at once
    events = [
        event(f"user-{n % USERS}", event_id=f"e{n}", timestamp=now_ms + n, amount=20 if n < 2 * USERS else 1)
        for n in range(4 * USERS)
    ]
    records = [(body["user_id"].encode(), orjson.dumps(body)) for body in events]
    with receiving() as receiver:
        options = launch_options(tmp_path, topics, receiver)
        rules = tmp_path / "rules"
        where = [f"--flink_master={flink.flink_master}", f"--job_name=test-{topics.tag}", f"--rules={rules}"]
        with (
            running(flink, topics, rules, *options),
            page(*where, *topics.options(), *options) as url,
            chromium(tmp_path) as browser,
            reading(kafka, topics.dead_letters) as dead_letters,
        ):
            receiver.answers["/crm"] = lambda: 400
            topics.produce(records[:1])
            dead_letters.until(1, 30)
            receiver.answers.clear()
            topics.produce(records[1:])

            # An action, and why: it fired, was refused, and the rule's cap stopped the next one.
            log = f"{url}/decisions?user=user-0"
            open_until(browser, log, lambda found: len(found) == 3, 20)
            assert decided(browser) == ["capped", "undelivered", "fired"]
            follow(browser, browser.find_element(By.LINK_TEXT, "webhook").click)
            assert decided(browser) == ["undelivered", "fired"]
            assert "status 400" in rows(browser)[0]

            # The dead letter, redriven by the button: the same webhook comes again.
            follow(browser, browser.find_element(By.LINK_TEXT, "Sign in to change things").click)
            browser.find_element(By.NAME, "token").send_keys(TOKEN)
            follow(browser, browser.find_element(By.CSS_SELECTOR, "main button").click)
            follow(browser, browser.find_element(By.LINK_TEXT, "Dead letters").click)
            assert ["undelivered" in row and "user-0" in row for row in rows(browser)] == [True]
            browser.find_element(By.NAME, "place").click()
            follow(browser, browser.find_element(By.CSS_SELECTOR, "main button.primary").click)
            browser.find_element(By.NAME, "accept_unsigned").click()  # the job has no --dead_letters_key
            follow(browser, browser.find_element(By.XPATH, "//button[text()='Show again']").click)
            follow(browser, browser.find_element(By.XPATH, "//button[text()='Send']").click)
            assert browser.find_element(By.CSS_SELECTOR, "[role=status]").text == "sent: 1 actions, 0 events"
            receiver.until(lambda: receiver.seen.count(receiver.seen[0]) == 2, 30)  # id and body
            open_until(browser, log, lambda found: any(" delivered " in row for row in found), 20)

            # The user's state, from the job.
            box = browser.find_element(By.NAME, "user_id")
            box.send_keys("user-0")
            follow(browser, box.submit)
            headings = [heading.text for heading in browser.find_elements(By.TAG_NAME, "h2")]
            assert headings == ["Profile (unknown)", "Current visit", "Caps", "Events and decisions"]
            seen = [entry.text for entry in browser.find_elements(By.CSS_SELECTOR, ".timeline > li")]
            assert [next(name for name in ("e18", "e12", "e6", "e0") if name in text.split()) for text in seen] == [
                "e18", "e12", "e6", "e0"
            ]  # fmt: skip
            assert "undelivered" in seen[-1]
            assert "capped" in seen[-2]

            # Rules with their matches, as soon as Flink tells its metrics.
            matched = f"{2 * USERS} {USERS} 0 0"
            open_until(browser, f"{url}/rules", lambda found: any(row.endswith(matched) for row in found), 60)
            (rule, *_) = rows(browser)
            assert rule.startswith("offer v3 ")
            follow(browser, browser.find_element(By.LINK_TEXT, "offer").click)
            assert "event.amount > 10" in browser.find_element(By.TAG_NAME, "main").text
    assert receiver.bad == []
