"""Headless Chromium, from Debian's packages (`make infra-tools`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.common.exceptions import JavascriptException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.waiting import eventually

CHROMEDRIVER = "/usr/bin/chromedriver"


@contextmanager
def chromium(folder: Path, width: int = 1200, height: int = 900, dark: bool = False) -> Iterator[Chrome]:
    """A new browser, its profile in ``folder``; it ends with the context."""
    options = ChromeOptions()
    for argument in (
        "--headless=new",
        f"--window-size={width},{height}",
        f"--user-data-dir={folder / 'chromium'}",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
        "--hide-scrollbars",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium refuses root otherwise
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The path is given, or selenium would look for a driver on the internet.
    browser = Chrome(options, ChromeService(CHROMEDRIVER))
    try:
        browser.set_page_load_timeout(30)
        yield browser
    finally:
        browser.quit()


def follow(browser: Chrome, lead: Callable[[], None]) -> None:
    """Call ``lead`` and wait for the page it leads to: Chromium may still show the old page after a click."""
    browser.execute_script("window.isOld = true")

    def is_loaded() -> bool:
        try:
            return bool(browser.execute_script("return !window.isOld && document.readyState === 'complete'"))
        except JavascriptException:
            return False  # between the two

    lead()
    eventually(is_loaded, "another page", 30)
