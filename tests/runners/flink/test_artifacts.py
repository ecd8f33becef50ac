from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import os
import re
import shutil
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from runners.flink import artifacts
from runners.flink.errors import LocalStackError

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVENT_TRIGGER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVENT_TRIGGER_CONNECTORS", raising=False)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of fake programs that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for tool in ("sh", "mkdir", "touch", "cat", "dirname"):
        (folder / tool).symlink_to(shutil.which(tool, path=os.defpath) or f"/bin/{tool}")
    return folder


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def java(folder: Path, version: str) -> None:
    program(folder, "java", f"""echo 'openjdk version "{version}" 2025-04-15' >&2""")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the connectors' sources that tests may change."""
    folder = tmp_path / "connectors"
    (folder / "src" / "main" / "java").mkdir(parents=True)
    (folder / "pom.xml").write_text("<project/>")
    (folder / "src" / "main" / "java" / "A.java").write_text("class A {}")
    monkeypatch.setattr(artifacts, "_CONNECTORS_SOURCE", folder)
    return folder


MVN_PACKAGE = "echo built >> {log}; mkdir -p target/lib; touch target/ours.jar target/lib/beam.jar"


@pytest.fixture(autouse=True)
def jar_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list with the jars of the fake Maven; what it builds itself is no part of it."""
    jars = {"beam.jar": b"", f"flink-s3-fs-hadoop-{artifacts.FLINK_VERSION}.jar": b"a\n"}
    path = tmp_path / "jars.txt"
    path.write_text("".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in jars.items()))
    monkeypatch.setattr(artifacts, "JAR_LIST", path)
    return path


def test_connectors_are_rebuilt_only_when_their_sources_change(
    sources: Path, programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    java(programs, "17.0.15")
    program(programs, "mvn", MVN_PACKAGE.format(log=tmp_path / "builds"))
    first = artifacts.connectors()
    assert [jar.name for jar in first] == ["beam.jar", "ours.jar"]
    assert "connectors: building with Maven" in capsys.readouterr().err
    assert artifacts.connectors() == first
    assert capsys.readouterr().err == ""
    assert not (sources / "target").exists()

    (sources / "src" / "main" / "java" / "A.java").write_text("class A { int x; }")
    assert artifacts.connectors() != first
    assert (tmp_path / "builds").read_text().split() == ["built", "built"]


def test_old_builds_of_the_connectors_are_dropped_unless_they_may_be_in_use(
    sources: Path, programs: Path, tmp_path: Path, cache: Path
) -> None:
    java(programs, "17.0.15")
    program(programs, "mvn", MVN_PACKAGE.format(log=tmp_path / "builds"))
    builds = []
    for number in range(6):
        (sources / "pom.xml").write_text(f"<project>{number}</project>")
        builds.append(artifacts.connectors()[0].parent)
    assert len(list(cache.glob("connectors-*"))) == 6
    two_days_ago = time.time() - 2 * 24 * 3600
    for number, build in enumerate(builds[:5]):
        os.utime(build, (two_days_ago + number,) * 2)
    artifacts.connectors()
    assert sorted(cache.glob("connectors-*")) == sorted(builds[3:])


def test_a_file_that_only_moved_counts_as_changed(sources: Path) -> None:
    before = artifacts.connectors_digest()
    folder = sources / "src" / "main" / "java"
    (folder / "A.java").rename(folder / "B.java")
    assert artifacts.connectors_digest() != before


def test_a_folder_of_connectors_replaces_the_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "a.jar").touch()
    monkeypatch.setenv("EVENT_TRIGGER_CONNECTORS", str(tmp_path / "image"))
    assert artifacts.connectors() == [tmp_path / "image" / "a.jar"]


def test_a_given_folder_without_connectors_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVENT_TRIGGER_CONNECTORS", str(tmp_path / "nowhere"))
    with pytest.raises(LocalStackError, match=r"EVENT_TRIGGER_CONNECTORS=.*nowhere: no \*\.jar"):
        artifacts.connectors()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of installed packages, of a machine without a checkout."""
    monkeypatch.setattr(artifacts, "_CONNECTORS_SOURCE", tmp_path / "none")
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    return tmp_path / "site-packages"


def install_connectors(installed: Path, version: str) -> Path:
    package = installed / "event_trigger_connectors"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "beam.jar").touch()
    metadata = installed / f"event_trigger_connectors-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.4\nName: event-trigger-connectors\nVersion: {version}\n")
    return package


def test_without_a_checkout_the_jars_are_those_of_their_package(installed: Path) -> None:
    package = install_connectors(installed, importlib.metadata.version("event-trigger"))
    assert artifacts.connectors() == [package / "beam.jar"]
    assert artifacts.built_connectors() == package


def test_jars_of_another_release_are_refused_with_both_versions(installed: Path) -> None:
    install_connectors(installed, "0.0.7")
    for function in (artifacts.connectors, artifacts.built_connectors):
        with pytest.raises(
            LocalStackError, match=r"event-trigger-connectors is 0\.0\.7, event-trigger is \d.*; install both"
        ):
            function()


@pytest.mark.usefixtures("installed")
def test_an_installed_package_without_jars_says_what_to_do() -> None:
    for function in (artifacts.connectors, artifacts.built_connectors):
        with pytest.raises(
            LocalStackError, match=r"event-trigger-connectors is not installed; .*EVENT_TRIGGER_CONNECTORS"
        ):
            function()


@pytest.mark.usefixtures("sources")
def test_a_failed_build_shows_maven_and_leaves_nothing(programs: Path, cache: Path) -> None:
    java(programs, "17.0.15")
    program(programs, "mvn", "echo '[ERROR] cannot find symbol'; exit 1")
    with pytest.raises(LocalStackError, match=r"(?s)mvn: .* ended with 1.*cannot find symbol"):
        artifacts.connectors()
    assert [path for path in cache.iterdir() if path.is_dir()] == []


@pytest.mark.usefixtures("sources")
def test_missing_maven_is_named(programs: Path) -> None:
    java(programs, "17.0.15")
    with pytest.raises(LocalStackError, match="mvn: not found on the PATH; needed: Apache Maven"):
        artifacts.connectors()


@pytest.mark.usefixtures("programs")
def test_missing_java_is_named() -> None:
    with pytest.raises(LocalStackError, match="java: not found; needed: Java 17 to 21"):
        artifacts.java()


@pytest.mark.parametrize("version", ["1.8.0_392", "11.0.22", "24"])
def test_an_unsupported_java_is_refused(programs: Path, version: str) -> None:
    java(programs, version)
    with pytest.raises(LocalStackError, match=f"java: .*{re.escape(version)}.*needed: Java 17 to 21"):
        artifacts.java()


@pytest.mark.parametrize("version", ["17.0.15", "21"])
def test_a_supported_java_is_used(programs: Path, version: str) -> None:
    java(programs, version)
    assert artifacts.java() == str(programs / "java")


def test_java_home_comes_first(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(programs, "11")
    (tmp_path / "home" / "bin").mkdir(parents=True)
    java(tmp_path / "home" / "bin", "17")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert artifacts.java() == str(tmp_path / "home" / "bin" / "java")


def sdist(path: Path, *names: str) -> str:
    """A small stand-in for Flink's sdist; its SHA-256."""
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(f"apache-flink-libraries-{artifacts.FLINK_VERSION}/{name}")
            member.size = 4
            archive.addfile(member, io.BytesIO(b"jar!"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replaces ``python -m pip download`` by a script that delivers the returned file."""
    delivered = tmp_path / f"apache-flink-libraries-{artifacts.FLINK_VERSION}.tar.gz"
    script = tmp_path / "fake-python"
    # $8: -m pip download --quiet --no-deps --no-binary :all: --dest FOLDER --require-hashes --requirement FILE
    script.write_text(
        f'#!/bin/sh\n[ "$8" = --dest ] && [ "${{10}}" = --require-hashes ] && cat "${{12}}" > {tmp_path}/wanted'
        f' && cat "$PYTHONPATH/setuptools/build_meta.py" > {tmp_path}/backend.py && cp {delivered} "$9"\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return delivered


def test_only_the_distribution_is_unpacked(pip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_FLINK_SDIST_SHA256", sdist(pip, "deps/lib/flink-dist.jar", "setup.py"))
    home = artifacts.flink_home()
    assert [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()] == ["lib/flink-dist.jar"]


def test_pip_checks_the_hash_before_it_runs_what_it_downloads(
    pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sdist(pip, "deps/lib/flink-dist.jar")
    monkeypatch.setattr(artifacts, "_FLINK_SDIST_SHA256", digest)
    artifacts.flink_home()
    wanted = (tmp_path / "wanted").read_text()
    assert wanted == f"apache-flink-libraries=={artifacts.FLINK_VERSION} --hash=sha256:{digest}\n"


def test_nothing_of_what_pip_downloads_is_run(pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_FLINK_SDIST_SHA256", sdist(pip, "deps/lib/flink-dist.jar", "setup.py"))
    artifacts.flink_home()
    # What pip asks for the name and version instead of setup.py.
    spec = importlib.util.spec_from_file_location("backend_of_pip", tmp_path / "backend.py")
    assert spec is not None
    backend = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, backend)
    spec.loader.exec_module(backend)
    assert backend.__legacy__ is backend
    assert backend.get_requires_for_build_wheel() == []
    name = backend.prepare_metadata_for_build_wheel(str(tmp_path))
    assert f"Version: {artifacts.FLINK_VERSION}\n" in (tmp_path / name / "METADATA").read_text()


def test_another_sdist_than_the_pinned_one_is_refused(pip: Path, cache: Path) -> None:
    archive = sdist(pip, "deps/lib/flink-dist.jar")
    with pytest.raises(LocalStackError, match=f"SHA-256 is {archive}, expected {artifacts._FLINK_SDIST_SHA256}"):
        artifacts.flink_home()
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_missing_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "fake-python"
    script.write_text("#!/bin/sh\necho 'No module named pip' >&2; exit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(LocalStackError, match=r"(?s)pip: .*this Python needs pip.*No module named pip"):
        artifacts.flink_home()


def test_concurrent_requests_make_an_artifact_once() -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        time.sleep(0.2)
        (folder / "file").touch()
        made.append(folder)

    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(artifacts.cached("thing-1", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(folders) == 4
    assert len(set(folders)) == 1
    assert (folders[0] / "file").exists()


def test_what_an_interrupted_run_left_is_cleaned_up(cache: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifacts.cached("thing-1", interrupted)
    (cache / ".thing-1.part-killed").mkdir()  # as kill -9 leaves it
    assert not (cache / "thing-1").exists()
    artifacts.cached("thing-1", lambda folder: (folder / "whole").touch())
    assert [path.name for path in cache.iterdir() if path.is_dir()] == ["thing-1"]
    assert [path.name for path in (cache / "thing-1").iterdir()] == ["whole"]


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENT_TRIGGER_CACHE", "/proc/nowhere")
    with pytest.raises(LocalStackError, match="thing-1: cannot be put into the cache /proc/nowhere"):
        artifacts.cached("thing-1", lambda _: None)


def test_no_file_names_a_registry() -> None:
    flink = ROOT / "runners" / "flink"
    for path in [*flink.glob("*.py"), flink / "kafka" / "pom.xml", flink / "zookeeper" / "pom.xml"]:
        hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text())) - {"maven.apache.org", "host", "127.0.0.1"}
        assert not hosts, f"{path.name}: {hosts}"


def test_the_s3_plugin_is_fetched_once_and_checked(
    programs: Path, jar_list: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    java(programs, "17.0.15")
    jar = f"flink-s3-fs-hadoop-{artifacts.FLINK_VERSION}.jar"
    script = 'for one in "$@"; do case $one in -DoutputDirectory=*) to=${one#*=};; esac; done; '
    program(programs, "mvn", f'{script}mkdir -p "$to"; echo b > "$to/{jar}"')
    with pytest.raises(LocalStackError, match=r"flink-s3-fs-hadoop.*SHA-256 is .*, expected"):
        artifacts.s3_plugin()
    program(programs, "mvn", f'{script}mkdir -p "$to"; echo a > "$to/{jar}"')
    plugin = artifacts.s3_plugin()
    assert [file.name for file in plugin.iterdir()] == [jar]
    capsys.readouterr()
    assert artifacts.s3_plugin() == plugin
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ("echo x > target/lib/beam.jar", "beam.jar: SHA-256 is .*, expected"),
        ("touch target/lib/beam.jar target/lib/more.jar", "more.jar: not in jars.txt; .*make lock-jars"),
    ],
)
@pytest.mark.usefixtures("sources")
def test_a_jar_that_is_not_the_listed_one_ends_the_build(programs: Path, cache: Path, made: str, problem: str) -> None:
    java(programs, "17.0.15")
    program(programs, "mvn", f"mkdir -p target/lib; touch target/ours.jar; {made}")
    with pytest.raises(LocalStackError, match=problem):
        artifacts.connectors()
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_every_listed_jar_has_a_hash_and_those_of_the_poms_are_listed() -> None:
    lines = [line.split() for line in (ROOT / "runners" / "flink" / "jars.txt").read_text().splitlines()]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest, *_ in lines)
    names = [name for _, name, *_ in lines]
    assert names == sorted(set(names))
    assert {
        f"zookeeper-{artifacts.ZOOKEEPER_VERSION}.jar",
        f"kafka-server-{artifacts.KAFKA_VERSION}.jar",
        f"flink-s3-fs-hadoop-{artifacts.FLINK_VERSION}.jar",
        "beam-runners-flink-1.19-2.70.0.jar",
    } <= set(names)


def test_the_pom_has_the_declared_zookeeper_version() -> None:
    pom = (ROOT / "runners" / "flink" / "zookeeper" / "pom.xml").read_text()
    assert f"<artifactId>zookeeper</artifactId>\n      <version>{artifacts.ZOOKEEPER_VERSION}</version>" in pom
