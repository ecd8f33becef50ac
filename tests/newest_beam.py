"""Runs tests against the newest Beam that installs, without and with Flink: ``make test-newest-beam``.

The environment lies in the cache folder, not in the tree. docs/newest-beam.md gets the result. The tests of the
overrides run with all overrides installed, although these were written for another release. On Flink the runner is
that of our own release. A launch and a worker refuse such a pair; those of this environment do not.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from junitparser import Error, Failure, JUnitXml

from runners.flink import artifacts
from runners.flink.overrides import BEAM_VERSION, OVERRIDES, without_cloud_clients
from tests.overridden import WRITTEN_AGAINST, changed_sources

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "newest-beam.md"
TESTS = ("tests/transforms", "tests/runners/flink/overrides")
FLINK_TESTS = ("tests/integration/test_main_job.py", "tests/integration/test_golden.py")

# It fails for every other release, which the page shows as changed source.
_DIGESTS_TEST = (
    "tests/runners/flink/overrides/test_overrides.py::test_beam_has_the_source_that_the_overrides_were_written_against"
)
_MESSAGE_CHARACTERS = 160

# In the environment a launch takes the installed Beam for the runner's release, and a worker for that of the overrides.
_LAUNCHES = f"""\
import importlib.metadata

version = importlib.metadata.version
importlib.metadata.version = lambda name: "{BEAM_VERSION}" if name == "apache-beam" else version(name)
"""
_WORKER = """\
#!{python}
import sys

sys.path.insert(0, {root!r})
from runners.flink import overrides, worker

with overrides.without_cloud_clients():
    from apache_beam.version import __version__
overrides.BEAM_VERSION = __version__
worker.main()
"""


@dataclass
class Results:
    """How many tests ran and were skipped; the messages of those that failed, by node id; which fail here, too."""

    tests: int
    skipped: int
    failed: dict[str, str]
    failed_here: Collection[str] = ()

    @property
    def counts(self) -> str:
        """The numbers in words."""
        passed = self.tests - len(self.failed) - self.skipped
        return f"{passed} passed, {len(self.failed)} failed, {self.skipped} skipped"


def main() -> int:
    """Make the environment, run the tests in it, write the page; 0 even if tests fail, which the page then says."""
    python = make_environment(artifacts.cache_dir() / "newest-beam")
    described = subprocess.run(
        [python, "-m", "tests.newest_beam", "--describe"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    results = run_tests_again(python, TESTS)
    on_flink = run_tests_again(python, FLINK_TESTS)
    PAGE.write_text(page(json.loads(described.stdout), results, on_flink), "utf-8")
    sys.stdout.write(f"{PAGE}\n")
    return 0


def run_tests_again(python: str, tests: Collection[str]) -> Results:
    """Run tests; those that fail once more, and then with our own Beam: a busy machine may fail a test once."""
    results = run_tests(python, tests)
    results.failed = run_tests(python, results.failed).failed
    results.failed_here = run_tests(sys.executable, results.failed).failed.keys()
    return results


def run_tests(python: str, tests: Collection[str]) -> Results:
    """Run tests, given as paths or node ids, with this Python."""
    if not tests:
        return Results(0, 0, {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "junit.xml")
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=0", "--durations-min=30"]
        subprocess.run([*command, f"--junitxml={path}", f"--deselect={_DIGESTS_TEST}", *tests], cwd=ROOT, check=False)
        xml = JUnitXml.fromfile(str(path))
    failed = {
        f"{case.classname.replace('.', '/')}.py::{case.name}": str(result.message).split("\n")[0]
        for suite in xml
        for case in suite
        for result in case.result
        if isinstance(result, Failure | Error)
    }
    return Results(xml.tests, xml.skipped, failed)


def make_environment(folder: Path) -> str:
    """A virtual environment with what pyproject.toml names, but any release of Beam; the path of its Python."""
    uv = str(Path(sys.executable).parent / "uv")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    any_beam = folder / "override.txt"
    any_beam.write_text("apache-beam[gcp,aws]\n")
    python = str(folder / "venv" / "bin" / "python")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")], check=True)
    requirements = ["--override", str(any_beam), "-r", str(ROOT / "pyproject.toml"), "--extra", "dev"]
    subprocess.run([uv, "pip", "install", "--quiet", "--refresh", "--python", python, *requirements], check=True)
    (site_packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site_packages / "sitecustomize.py").write_text(_LAUNCHES)
    worker = Path(python).with_name("event-trigger-worker")  # where a launch looks for it
    worker.write_text(_WORKER.format(python=python, root=str(ROOT)))
    worker.chmod(0o755)
    return python


def describe() -> dict[str, Any]:
    """The release of the Beam that is installed, and which of its source each override was not written against."""
    with without_cloud_clients():
        from apache_beam.version import __version__ as installed
    return {
        "beam": installed,
        "changed": {name: changed_sources(digests) for name, digests in WRITTEN_AGAINST.items()},
    }


def page(described: dict[str, Any], results: Results, on_flink: Results) -> str:
    """The page: releases, counts, overrides, and the tests that fail, also those that fail with our own Beam."""
    lines = [
        "# The newest Beam",
        "",
        f"This project runs on Beam {BEAM_VERSION}. This page shows what the newest Beam SDK for Python would break.",
        "`make test-newest-beam` writes it. It installs that SDK into an environment of its own and runs tests there,",
        f"also a job on Flink {artifacts.FLINK_VERSION} with Beam's runner of {BEAM_VERSION}.",
        "",
        f"- Run on {datetime.now(UTC):%Y-%m-%d} with Beam {described['beam']} and Python {platform.python_version()}.",
        f"- Tests that need no Flink: {results.counts}.",
        f"- Tests of the job on Flink, whose workers have all overrides: {on_flink.counts}.",
        "",
        "Tests that failed were repeated; this counts the second result. A launch refuses a Beam that is not of the",
        "runner's release, and a worker refuses to install the overrides. Both checks are off in that environment, to",
        "see the job there: 20,000 events, whose actions, dead letters and state are compared with an oracle, by user",
        "shard, by user, and through two kills of a TaskManager (`tests/integration/test_main_job.py`); and a job that",
        "goes on from a savepoint of an earlier release (`tests/integration/test_golden.py`).",
        "",
        "## Overrides",
        "",
        "An override replaces a function of Beam's worker (`runners/flink/overrides`). It was written against the",
        f"source of the parts of Beam {BEAM_VERSION} that it imitates or uses. Its tests ran with all overrides",
        "installed.",
        "",
        "| override | replaces | source that differs in the newest Beam |",
        "|---|---|---|",
    ]
    targets = {replacement.__name__: f"`{target}`" for target, replacement in OVERRIDES.items()}
    for name, changed in described["changed"].items():
        differs = ", ".join(f"`{part}`{' (missing)' * (digest == 'missing')}" for part, digest in changed.items())
        lines.append(f"| `{name}` | {targets.get(name, 'nothing; it starts the SDK harness')} | {differs or 'none'} |")
    lines += ["", "## Tests that fail", ""]
    failures = [
        f"- `{name}`{f' (with Beam {BEAM_VERSION} too)' * (name in found.failed_here)}: "
        f"`{message[:_MESSAGE_CHARACTERS].replace('`', chr(39))}`"
        for found in (results, on_flink)
        for name, message in found.failed.items()
    ]
    lines += failures or ["None."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--describe"]:
        sys.stdout.write(json.dumps(describe()))
    else:
        sys.exit(main())
