"""The archives of `make release`: reproducible, with every locked dependency of a worker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pycurl
import pytest

from infra.release import __main__ as release
from infra.release import contents
from tests.infra.terraform import ROOT


def test_a_release_archive_depends_on_content_only(tmp_path: Path) -> None:
    archives = []
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "program").write_text("#!/bin/sh\n")
        (folder / "bin" / "program").chmod(0o755 if name == "one" else 0o700)
        (folder / "data").write_text("data")
        archives.append(release._pack(folder, tmp_path, "same"))
    assert archives[0] == archives[1]
    (tmp_path / "two" / "data").write_text("other")
    assert release._pack(tmp_path / "two", tmp_path, "same")["sha256"] != archives[0]["sha256"]
    assert json.dumps(archives[0])


def locked(name: str) -> set[tuple[str, str]]:
    """Package and version of every entry of a lock file; a package may have several entries, for different Pythons."""
    return set(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))


def test_workers_get_every_dependency_in_the_version_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower() for requirement in project["dependencies"]}  # type: ignore[index]
    runtime = locked("runtime.txt")
    assert {"apache-beam", "tzdata"} <= declared <= {name for name, _ in runtime}
    assert runtime <= locked("lock.txt")


def test_nodes_get_no_client_of_a_cloud_or_database_that_nothing_imports() -> None:
    names = {name for name, _ in locked("runtime.txt")}
    extra = {name for name in names if name.startswith(("google-", "cloud-sql", "grpc-google", "opentelemetry"))}
    assert extra == set()
    assert len(names) < 70


# Refuses every package that is in the lock file of the tests and not in that of the nodes, then imports all modules.
IMPORTS = """
import importlib, importlib.abc, importlib.metadata, pkgutil, re, sys
kept = set(sys.argv[1].split(","))
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
owners = importlib.metadata.packages_distributions()
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        owned = {normal(owner) for owner in owners.get(name.partition(".")[0], ())}
        if owned and not owned & kept:
            raise ModuleNotFoundError(f"not on nodes: {name}")
sys.meta_path.insert(0, Refuse())
import pipeline, runners, transforms
for package in (pipeline, runners, transforms):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith("pipeline.ui") and not module.name.endswith(("__main__", "backtest_plot")):
            importlib.import_module(module.name)
from apache_beam.runners.worker import sdk_worker_main
print(len(sys.modules))
"""


@pytest.mark.slow
def test_every_module_is_imported_with_what_nodes_have() -> None:
    kept = {re.sub("[-_.]+", "-", name).lower() for name, _ in locked("runtime.txt")} | {"event-trigger"}
    command = [sys.executable, "-c", IMPORTS, ",".join(sorted(kept))]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-2000:]
    # The test itself refuses: with Beam's own dependencies gone nothing could be imported.
    broken = subprocess.run([*command[:-1], "event-trigger"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "not on nodes" in broken.stderr


def test_a_release_lists_libcurl_and_its_tls_library_with_their_versions() -> None:
    lines = contents.native_libraries(Path(pycurl.__file__).parent).splitlines()
    assert lines == pycurl.version.split()
    assert [line.partition("/")[0] for line in lines[:3]] == ["PycURL", "libcurl", "OpenSSL"]
