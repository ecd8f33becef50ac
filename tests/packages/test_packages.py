"""`make dist`: the same files twice, everything in them, and a wheel that works without the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from infra.packages import __main__ as packages
from infra.packages.__main__ import ROOT, PackagesError, check_changelog
from tests.packages.installed import Installed, install

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "dist"
    packages.build(folder, with_connectors=False)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Installed:
    return install(tmp_path_factory.mktemp("installed"), built)


def known_to_git(*folders: str) -> set[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).is_file()}


def test_two_builds_are_equal_whatever_the_umask_and_the_time_zone(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    before = os.umask(0o077)
    try:
        packages.build(tmp_path / "again", with_connectors=False)
    finally:
        os.umask(before)
    assert (tmp_path / "again" / "SHA256SUMS").read_text() == (built / "SHA256SUMS").read_text()


def test_the_wheel_has_every_file_of_its_packages_and_no_other(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    source = known_to_git("pipeline", "transforms", "runners")
    assert names == {name for name in source if not name.startswith("runners/flink/connectors/")}


def test_the_source_distribution_also_has_the_connectors_sources_and_the_lock(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    assert known_to_git("pipeline", "transforms", "runners", "requirements") <= names
    assert {"LICENSE", "CHANGELOG.md", "README.md", "pyproject.toml"} <= names


def test_the_version_is_in_one_place_and_the_changelog_has_it() -> None:
    version = packages.project_version()
    check_changelog(version, (ROOT / "CHANGELOG.md").read_text("utf-8"))
    text = (ROOT / "infra/packages/connectors/pyproject.toml").read_text()
    assert tomllib.loads(text)["project"]["dynamic"] == ["version"]
    sources = [
        ROOT / name for name in known_to_git("pipeline", "transforms", "runners", "infra") if name.endswith(".py")
    ]
    assert [str(path) for path in sources if f'"{version}"' in path.read_text("utf-8")] == []


@pytest.mark.parametrize(
    ("version", "changelog", "problem"),
    [
        ("1.2.0", "# C\n\n## 1.2.0 - 2026-01-01\n\n- x\n", None),
        ("1.2.0", "# C\n\n## [1.2.0] - 2026-01-01\n\n- x\n", None),
        ("1.2.0.dev1", "# C\n\n## Unreleased\n\n- x\n\n## 1.1.0\n", None),
        ("1.2.0", "# C\n\n## Unreleased\n\n- x\n\n## 1.1.0\n\n- y\n", "has no section '## 1.2.0'"),
        ("1.2.0", "# C\n\n## 1.2.01\n\n- x\n", "has no section '## 1.2.0'"),
        ("1.2.0", "# C\n\n## 1.2.0\n\n## 1.1.0\n\n- y\n", "'## 1.2.0' is empty"),
        ("1.2.0.dev1", "# C\n\n## 1.1.0\n\n- x\n", "has no section '## Unreleased'"),
    ],
)
def test_a_version_needs_an_entry_in_the_changelog(version: str, changelog: str, problem: str | None) -> None:
    if problem is None:
        check_changelog(version, changelog)
    else:
        with pytest.raises(PackagesError, match=re.escape(problem)):
            check_changelog(version, changelog)


@pytest.mark.parametrize("value", ["yesterday", "-5", "0", "1e9"])
def test_a_wrong_source_date_is_refused(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(PackagesError, match=f"SOURCE_DATE_EPOCH is '{value}'; allowed: seconds since 1970"):
        packages.build(tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def locked(name: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))


def test_the_lock_that_is_shipped_has_every_extra_in_the_versions_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for name in ("ui", "plot") for need in project["optional-dependencies"][name]),
    ]
    names = {re.match(r"[A-Za-z0-9._-]+", need)[0].lower() for need in wanted}
    shipped = locked("all-extras.txt")
    assert names <= {name for name, _ in shipped}
    assert locked("runtime.txt") <= shipped <= locked("lock.txt")


# In the environment: prints the help of every command, one JSON text each, so that one process loads Beam once.
_EVERY_HELP = """
import contextlib, io, json
from pipeline.cli.commands import COMMANDS, Commands
from pipeline.cli.main import main
for name, command in COMMANDS.items():
    for words in [[name, below] for below in command.commands] if isinstance(command, Commands) else [[name]]:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            code = main([*words, "--help"])
        print(json.dumps([words, code, text.getvalue()]))
"""


def test_the_wheel_has_every_command(installed: Installed) -> None:
    helps = [json.loads(line) for line in installed.output("python", "-c", _EVERY_HELP).splitlines()]
    assert len(helps) > 30
    assert [words for words, code, text in helps if code != 0 or f"event-trigger {' '.join(words)}" not in text] == []
    assert installed.output("event-trigger", "--version").strip() == packages.project_version()


def test_the_wheel_alone_runs_the_bundled_events_and_writes_checks_and_tests_a_rule(installed: Installed) -> None:
    code = installed.output("python", "-c", "import pipeline, transforms, runners; print(pipeline.__path__[0])")
    assert code.startswith(str(installed.environment))
    assert re.search(r"welcome_first_visit +2,376 +148 +0 +0 +148\n", installed.output("event-trigger"))
    installed.output("event-trigger", "init")
    installed.output("event-trigger", "config", "check")
    installed.output("event-trigger", "rules", "new", "rules")
    installed.output("event-trigger", "rules", "check", "rules/")
    assert "0 failed" in installed.output("event-trigger", "rules", "test", "rules/")


def test_without_the_connectors_package_doctor_says_which_wheel_is_missing(installed: Installed) -> None:
    done = installed.run("event-trigger", "doctor", "--runner=FlinkRunner")
    line = next(line for line in done.stdout.splitlines() if "Maven" in line)
    assert done.returncode == 1
    assert line.startswith("FAIL")
    assert "event-trigger-connectors is not installed; install its wheel" in line
