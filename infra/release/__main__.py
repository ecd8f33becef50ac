"""``make release``: writes build/release with the archives that nodes boot with, and manifest.json.

flink      Flink, our connectors in lib/, the S3 and Prometheus plugins, the settings that every cluster shares
python     the locked packages and ours, two programs, and what pycurl bundles: native-libraries.txt
zookeeper  ZooKeeper's jars

bom.cdx.json and licences.csv say what they hold: packages, jars and what is shaded into them, with their licences.

An archive's name carries its content's SHA-256. The same inputs give the same archive, so that nodes are replaced only
when something changed. Wheels are for CPython 3.11 on x86_64 Linux with glibc 2.28 or newer.
"""

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from infra.release import bill
from runners.flink import artifacts, configuration
from runners.flink.errors import FlinkRunnerError

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent

_PYTHON = "3.11"
_LOCK = ROOT / "requirements" / "runtime.txt"
_COMPRESSION = 4  # the jars and most wheels are compressed already


def main(argv: Sequence[str]) -> int:
    """Build the archives; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.release", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "release", help="folder to write to")
    parser.add_argument(
        "--jar", type=Path, action="append", default=[], help="further jar for Flink's lib/; may be repeated"
    )
    parser.add_argument("--msk_iam", action="store_true", help="with what Amazon MSK's logins by IAM need")
    arguments = parser.parse_args(argv)
    try:
        msk_iam = [artifacts.msk_iam_jar()] if arguments.msk_iam else []
        manifest = build(arguments.output, [*arguments.jar, *msk_iam])
    except FlinkRunnerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for name, entry in manifest.items():
        sys.stdout.write(f"{name:10} {entry['file']}  {int(entry['bytes']) // 1_000_000} MB\n")
    return 0


class ReleaseError(FlinkRunnerError, RuntimeError):
    """A tool failed or a file is missing; the message says which."""


def build(output: Path, jars: Sequence[Path] = ()) -> dict[str, dict[str, str | int]]:
    """Write the archives and manifest.json into ``output``; the manifest.

    Archives of earlier releases stay, so that a cluster can go back to them.
    """
    output.mkdir(parents=True, exist_ok=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    archives: dict[str, tuple[str, Callable[[Path], None]]] = {
        "flink": (artifacts.FLINK_VERSION, lambda folder: _flink(folder, jars)),
        "python": (version, _python),
        "zookeeper": (artifacts.ZOOKEEPER_VERSION, _zookeeper),
    }
    manifest: dict[str, dict[str, str | int]] = {}
    components = list(bill.os_packages())
    for name, (archive_version, fill) in archives.items():
        with tempfile.TemporaryDirectory(prefix=f"release-{name}-", dir=output) as folder:
            content = Path(folder, name)
            content.mkdir()
            fill(content)
            components += _components(content)
            manifest[name] = _pack(content, output, f"{name}-{archive_version}")
    bill.write(output, version, components)
    (output / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _components(content: Path) -> Iterator[bill.Component]:
    yield from bill.jars(content)
    yield from bill.python_packages(content / "site-packages")
    libraries = content / "native-libraries.txt"
    if libraries.is_file():
        yield from bill.native_libraries(libraries.read_text())


def _flink(folder: Path, jars: Sequence[Path] = ()) -> None:
    flink = artifacts.flink_home()
    (folder / "bin").mkdir(parents=True)
    shutil.copy(flink / "bin" / "bash-java-utils.jar", folder / "bin")
    _program(HERE / "flink-node.sh", folder / "bin" / "flink-node")
    shutil.copytree(flink / "lib", folder / "lib")
    for jar in [*artifacts.connectors(), *jars]:
        if not jar.is_file():
            raise ReleaseError(f"--jar {jar}: no such file")
        shutil.copy(jar, folder / "lib")
    shutil.copytree(flink / "plugins" / "metrics-prometheus", folder / "plugins" / "metrics-prometheus")
    shutil.copytree(artifacts.s3_plugin(), folder / "plugins" / "s3-fs-hadoop")
    conf = folder / "conf"
    conf.mkdir()
    configuration.write(conf, configuration.BASE)
    (conf / "config.yaml").rename(conf / "base.yaml")
    (conf / "log4j.properties").unlink()  # the cluster has its own, which rolls
    (conf / "java-options").write_text("".join(f"{option}\n" for option in configuration.JAVA_17_OPTIONS))


def _python(folder: Path, lock: Path = _LOCK) -> None:
    packages = folder / "site-packages"
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--target", str(packages)]
    target = ["--python-version", _PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
    # A few of Beam's dependencies exist as sources only and are built here: so with the Python that nodes have.
    if f"{sys.version_info.major}.{sys.version_info.minor}" != _PYTHON:
        raise ReleaseError(f"this is Python {sys.version.split()[0]}, the nodes have {_PYTHON}: make setup PYTHON=…")
    _run(*uv, *target, "--require-hashes", "--no-deps", "-r", str(lock))
    with tempfile.TemporaryDirectory(prefix="event-trigger-source-") as source:
        # Built in a copy: setuptools leaves folders beside what it builds.
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "pipeline", "transforms", "runners"):
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, Path(source, name))
        _run(*uv, "--no-deps", source)
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
    (folder / "native-libraries.txt").write_text(_native_libraries(packages))
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("event-trigger-worker", "event-trigger"):
        _program(HERE / f"{name}.sh", folder / "bin" / name)


def _native_libraries(packages: Path) -> str:
    """The libraries inside pycurl's wheel with their versions, one a line: no lock file lists libcurl and its TLS."""
    program = f"import sys; sys.path.insert(0, {str(packages)!r}); import pycurl; print(pycurl.version)"
    return _run(sys.executable, "-I", "-c", program).replace(" ", "\n")


def _zookeeper(folder: Path) -> None:
    (folder / "lib").mkdir()
    for jar in artifacts.zookeeper_jars():
        if not any(other in jar.name for other in ("-osx", "-windows", "-aarch_64")):
            shutil.copy(jar, folder / "lib")


def _program(source: Path, target: Path) -> None:
    shutil.copy(source, target)
    target.chmod(0o755)


def _pack(folder: Path, output: Path, name: str) -> dict[str, str | int]:
    """An archive of a folder's content, always the same for the same content: sorted, without times and owners."""
    part = output / f".{name}.part"
    with (
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as zipped,
        tarfile.open(mode="w", fileobj=zipped, format=tarfile.GNU_FORMAT) as archive,
    ):
        for path in sorted(folder.rglob("*")):
            archive.add(path, str(path.relative_to(folder)), recursive=False, filter=_anonymous)
    with part.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    archive_path = output / f"{name}-{sha256[:16]}.tar.gz"
    part.rename(archive_path)
    return {"file": archive_path.name, "sha256": sha256, "bytes": archive_path.stat().st_size}


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "root", "root"
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def _run(*command: str) -> str:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ReleaseError(
            f"{' '.join(command)} ended with {result.returncode}: {(result.stdout + result.stderr)[-2000:]}"
        )
    return result.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
