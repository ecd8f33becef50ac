"""What nodes and containers are filled with: Flink with our jars, Python's packages with ours, ZooKeeper."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from infra.packages.__main__ import ROOT
from infra.release import bill
from infra.release.bill import ReleaseError
from runners.flink import artifacts, configuration

HERE: Final = Path(__file__).resolve().parent

PYTHON: Final = "3.11"
RUNTIME_LOCK: Final = ROOT / "requirements" / "runtime.txt"


def flink(folder: Path, jars: Sequence[Path] = ()) -> None:
    """Flink with our jars and ``jars`` in lib/, the S3 and Prometheus plugins, the settings that all clusters share."""
    home = artifacts.flink_home()
    (folder / "bin").mkdir(parents=True)
    shutil.copy(home / "bin" / "bash-java-utils.jar", folder / "bin")
    _program(HERE / "flink-node.sh", folder / "bin" / "flink-node")
    shutil.copytree(home / "lib", folder / "lib")
    for jar in [*artifacts.connectors(), *jars]:
        if not jar.is_file():
            raise ReleaseError(f"--jar {jar}: no such file")
        shutil.copy(jar, folder / "lib")
    shutil.copytree(home / "plugins" / "metrics-prometheus", folder / "plugins" / "metrics-prometheus")
    shutil.copytree(artifacts.s3_plugin(), folder / "plugins" / "s3-fs-hadoop")
    conf = folder / "conf"
    conf.mkdir()
    configuration.write(conf, configuration.BASE)
    (conf / "config.yaml").rename(conf / "base.yaml")
    (conf / "log4j.properties").unlink()  # the cluster has its own, which rolls
    # Not in conf/: a container may have another folder mounted there.
    (folder / "bin" / "java-options").write_text("".join(f"{option}\n" for option in configuration.JAVA_17_OPTIONS))


def python(folder: Path, lock: Path = RUNTIME_LOCK) -> None:
    """The packages of a lock file and ours, and two programs: one starts a worker, the other is the command line."""
    packages = folder / "site-packages"
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--target", str(packages)]
    target = ["--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
    # A few of Beam's dependencies exist as sources only and are built here: so with the Python that nodes have.
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        raise ReleaseError(f"this is Python {sys.version.split()[0]}, the nodes have {PYTHON}: make setup PYTHON=…")
    run(*uv, *target, "--require-hashes", "--no-deps", "-r", str(lock))
    with tempfile.TemporaryDirectory(prefix="event-trigger-source-") as source:
        # Built in a copy: setuptools leaves folders beside what it builds.
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "pipeline", "transforms", "runners"):
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, Path(source, name))
        run(*uv, "--no-deps", source)
    shutil.rmtree(packages / "bin", ignore_errors=True)  # console scripts with this machine's paths
    for left in [*packages.rglob("__pycache__"), packages / ".lock"]:
        (shutil.rmtree if left.is_dir() else Path.unlink)(left)
    for record in [*packages.glob("*.dist-info/RECORD"), *packages.glob("*.dist-info/direct_url.json")]:
        record.unlink()  # name this machine's paths; nothing reads them
    # Workers may not write here. Unchecked, because the archive's files have no times of their own.
    compile_all = ["-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    subprocess.run(
        [sys.executable, *compile_all, "-s", str(packages), str(packages)], check=False
    )  # some test data is no Python
    (folder / "native-libraries.txt").write_text(native_libraries(packages))
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("event-trigger-worker", "event-trigger"):
        _program(HERE / f"{name}.sh", folder / "bin" / name)


def native_libraries(packages: Path) -> str:
    """The libraries inside pycurl's wheel with their versions, one a line: no lock file lists libcurl and its TLS."""
    program = f"import sys; sys.path.insert(0, {str(packages)!r}); import pycurl; print(pycurl.version)"
    return run(sys.executable, "-I", "-c", program).replace(" ", "\n")


def zookeeper(folder: Path) -> None:
    """ZooKeeper's jars."""
    (folder / "lib").mkdir()
    for jar in artifacts.zookeeper_jars():
        if not any(other in jar.name for other in ("-osx", "-windows", "-aarch_64")):
            shutil.copy(jar, folder / "lib")


def components(content: Path) -> Iterator[bill.Component]:
    """What a folder holds that was filled here."""
    yield from bill.jars(content)
    yield from bill.python_packages(content / "site-packages")
    libraries = content / "native-libraries.txt"
    if libraries.is_file():
        yield from bill.native_libraries(libraries.read_text())


def _program(source: Path, target: Path) -> None:
    shutil.copy(source, target)
    target.chmod(0o755)


def run(*command: str) -> str:
    """What a command prints.

    Raises:
        ReleaseError: it fails.
    """
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ReleaseError(
            f"{' '.join(command)} ended with {result.returncode}: {(result.stdout + result.stderr)[-2000:]}"
        )
    return result.stdout
