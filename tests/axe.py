"""axe-core, which checks pages for what keeps people from using them; its script comes in a jar of its makers."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import zipfile
from typing import Any

from selenium.webdriver import Chrome

from runners.flink import artifacts

VERSION = "4.10.1"
SHA256 = "5e4a306c2c785bc2997427724222178e7005b040cacbeb95468a329a5c60c3b0"
_TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


@functools.cache
def script() -> str:
    """The text of axe.min.js; fetched once into the cache, with Maven."""
    jar = artifacts.cache_dir() / f"axe-core-selenium-{VERSION}-{SHA256[:16]}.jar"
    if not jar.is_file():
        part = jar.with_name(f".{jar.stem}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        artifact = f"com.deque.html.axe-core:selenium:{VERSION}"
        command = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={part}"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, cwd=part)
        (fetched,) = part.glob("*.jar")
        assert hashlib.sha256(fetched.read_bytes()).hexdigest() == SHA256
        fetched.rename(jar)
        shutil.rmtree(part)
    with zipfile.ZipFile(jar) as archive:
        return archive.read("axe.min.js").decode()


def violations(browser: Chrome, rule: str | None = None) -> list[str]:
    """What axe-core finds on the shown page, with all its rules or one: a line for each element."""
    only = {"type": "tag", "values": _TAGS} if rule is None else {"type": "rule", "values": [rule]}
    if not browser.execute_script("return 'axe' in window"):
        browser.execute_script(script())
    found: list[dict[str, Any]] = browser.execute_async_script(
        "const done = arguments[1];"
        "axe.run(document, {runOnly: arguments[0], resultTypes: ['violations']})"
        ".then((result) => done(result.violations), (error) => done([{id: String(error), nodes: [{target: []}]}]))",
        only,
    )
    return [
        f"{rule['id']}: {' '.join(map(str, node['target']))}: {node.get('failureSummary', '')}"
        for rule in found
        for node in rule["nodes"]
    ]
