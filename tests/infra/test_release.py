"""The archives of `make release`: reproducible, with every locked dependency of a worker."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pycurl

from infra.release import __main__ as release
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


def test_a_release_lists_libcurl_and_its_tls_library_with_their_versions() -> None:
    lines = release._native_libraries(Path(pycurl.__file__).parent).splitlines()
    assert lines == pycurl.version.split()
    assert [line.partition("/")[0] for line in lines[:3]] == ["PycURL", "libcurl", "OpenSSL"]
