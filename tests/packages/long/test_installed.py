"""The wheels with each Python that is found: bundled events, the quick start, a launch on Flink.

Each that passes renews its row of docs/measurements/packages.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import orjson
import pytest

from infra.packages import __main__ as packages
from infra.packages.__main__ import ROOT
from tests.builders import NOW_MS
from tests.docs.outputs import QUICK_START, must_show
from tests.docs.pages import PAGES
from tests.figures import Figures
from tests.integration.jobs import Topics, reading
from tests.kafka_broker import KafkaBroker
from tests.packages.installed import Installed, install, install_by_the_page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PYTHONS = ("3.11", "3.12", "3.13")  # as the classifiers of pyproject.toml; a test compares them
FIGURES = Figures(
    "packages",
    "# Packages, measured\n\n`make test-dist` writes this page. It installs what `make dist` builds into empty\n"
    "environments, away from the checkout, and uses it there. Times are of a machine with two cores that\n"
    "also did other work.\n",
    ("files", *(f"Python {version}" for version in PYTHONS), "quick start", "Flink"),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "dist"
    files = packages.build(folder)
    FIGURES.record(files="; ".join(f"{file.name} {file.stat().st_size:,} bytes" for file in files))
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Installed:
    return install_by_the_page(tmp_path_factory.mktemp("installed"), built)


def interpreter(version: str) -> str:
    """The path of a Python of this version; skips the test where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for program in [f"python{version}", *map(str, pyenv.glob(f"versions/{version}.*/bin/python"))]:
        command = [program, "-c", "import sys; print(sys.executable)"]
        with contextlib.suppress(OSError):
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            if found.returncode == 0:
                return found.stdout.strip()
    pytest.skip(f"there is no Python {version} on this machine")


@pytest.mark.parametrize("version", PYTHONS)
def test_the_bundled_events_with_each_python(built: Path, tmp_path: Path, version: str) -> None:
    installed = install(tmp_path, built, python=interpreter(version))
    number = installed.output("python", "-c", "import platform; print(platform.python_version())").strip()
    started = time.monotonic()
    output = installed.output("event-trigger", deadline_s=900)
    assert re.search(r"welcome_first_visit +2,376 +148 +0 +0 +148\n", output)
    took = time.monotonic() - started
    FIGURES.record(**{f"Python {version}": f"{number}: 2,400 bundled events in {took:.0f} s, 300 actions"})


def test_the_quick_start_with_the_wheel(installed: Installed) -> None:
    """The commands of the page that need no checkout; what they print is what the page shows."""
    (page,) = (page for page in PAGES if page.name == QUICK_START)
    checked = 0
    for number, block in enumerate(page.blocks):
        if block.language != "sh" or "make " in block.text or ".venv/" in block.text:
            continue
        script = installed.place / "block.sh"
        script.write_text(f"set -euo pipefail\nexec 2>&1\n{block.text}")
        output = subprocess.run(
            ["bash", str(script)],
            cwd=installed.place,
            env={"PATH": f"{installed.environment / 'bin'}:/usr/bin:/bin", "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert output.returncode == 0, f"{block.place}: {output.stdout}"
        after = page.blocks[number + 1]
        if not after.language:
            must_show(after, output.stdout)
            checked += 1
    assert checked >= 5
    FIGURES.record(quick_start=f"steps 2 to 5, {checked} outputs as the page shows them")


@pytest.mark.stack
def test_a_launch_starts_a_flink_and_runs_the_job_there(built: Path, installed: Installed, tmp_path: Path) -> None:
    rules = installed.place / "one.yaml"
    rules.write_text("name: r\nversion: 1\nfilter: event.triggerable\nactions: [{type: kafka}]\n")
    event = {"event_id": "e", "user_id": "u", "event_name": "n", "timestamp": NOW_MS, "triggerable": True}
    with KafkaBroker() as kafka:
        topics = Topics(kafka)
        topics.produce([(b"u", orjson.dumps(event))])
        arguments = ["--runner=FlinkRunner", "--rules=one.yaml", *topics.options()]
        with (tmp_path / "output").open("wb") as output, reading(kafka, topics.actions) as actions:
            started = time.monotonic()
            launch = subprocess.Popen(
                [str(installed.environment / "bin" / "event-trigger"), *arguments],
                cwd=installed.place,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(Path.home())},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                while not actions.messages:
                    assert launch.poll() is None, (tmp_path / "output").read_text()
                    actions.settle(1)
                (message,) = actions.messages
                took = time.monotonic() - started
            finally:
                launch.send_signal(signal.SIGINT)
                code = launch.wait(120)
    assert orjson.loads(message.value())["event"]["event_id"] == "e"
    assert code == 0, (tmp_path / "output").read_text()
    FIGURES.record(Flink=f"the launch started a cluster; its first action came {took:.0f} s after the command")


def test_the_pythons_are_those_of_the_metadata() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert tuple(re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)) == PYTHONS
    assert f'requires-python = ">={PYTHONS[0]},<3.{int(PYTHONS[-1][2:]) + 1}"' in text
