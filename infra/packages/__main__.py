"""``make dist``: writes dist/ with what one installs where there is no checkout.

event_trigger-V.tar.gz                    the sources, those of the connectors too
event_trigger-V-py3-none-any.whl          the commands, the worker, what they read: Lua, templates, schemas, dashboards
event_trigger_connectors-V-py3-none-any.whl   the connectors' jars, for machines that launch jobs and for Flink's lib/
requirements.txt                          every package that they need, with hashes: the lock
SHA256SUMS                                of these files

The jars are a package of their own because workers and rule authors need none of their 75 MB, and because the first
package can so be built from its sources without Java. Both have one version, that of pyproject.toml.

The same commit gives the same files: they are made of the files that git knows, with the commit's time
(or $SOURCE_DATE_EPOCH), by the setuptools that requirements/build.txt names.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from runners.flink import artifacts
from runners.flink.errors import FlinkRunnerError

ROOT = Path(__file__).resolve().parents[2]

_CONNECTORS = Path(__file__).resolve().parent / "connectors"
_LOCK = ROOT / "requirements" / "all-extras.txt"
_BUILD_LOCK = ROOT / "requirements" / "build.txt"
_SOURCES = (
    "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md",
    "requirements", "pipeline", "transforms", "runners",
)  # fmt: skip
_EARLIEST_OF_ZIP = 315532800  # 1980-01-01: a wheel has no earlier times


class PackagesError(FlinkRunnerError, RuntimeError):
    """A package cannot be built; the message says why."""


def main(argv: Sequence[str]) -> int:
    """Build the packages; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.packages", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder to write to; it is emptied")
    arguments = parser.parse_args(argv)
    try:
        files = build(arguments.output)
    except FlinkRunnerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for file in files:
        sys.stdout.write(f"{file}  {file.stat().st_size:,} bytes\n")
    return 0


def build(output: Path, *, with_connectors: bool = True) -> list[Path]:
    """Build the packages into ``output``, which holds nothing else afterwards; the files.

    Raises:
        FlinkRunnerError: a tool fails, or CHANGELOG.md has no entry for this version.
    """
    version = project_version()
    check_changelog(version, (ROOT / "CHANGELOG.md").read_text("utf-8"))
    epoch = _epoch()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="event-trigger-packages-") as work:
        source, built = Path(work, "event-trigger"), Path(work, "built")
        copy_sources(source)
        sdist = _uv_build("sdist", source, built, epoch)
        _repack(sdist, epoch)
        # From the unpacked sdist: so it is known to have everything.
        with tarfile.open(sdist) as archive:
            archive.extractall(work, filter="data")
        _uv_build("wheel", Path(work, sdist.name.removesuffix(".tar.gz")), built, epoch)
        if with_connectors:
            _uv_build("wheel", _connectors_source(Path(work, "connectors"), version), built, epoch)
        shutil.copyfile(_LOCK, built / "requirements.txt")
        files = sorted(built.iterdir())
        (built / "SHA256SUMS").write_text("".join(f"{_sha256(file)}  {file.name}\n" for file in files))
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(built, output)
    return sorted(output.iterdir())


def project_version() -> str:
    """The version, from the only place that has it."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def check_changelog(version: str, changelog: str) -> None:
    """Check that CHANGELOG.md says what is in this version; a development version's heading is "Unreleased".

    Raises:
        PackagesError: there is no such section, or nothing in it.
    """
    heading = "Unreleased" if ".dev" in version else version
    section = re.search(rf"^## \[?{re.escape(heading)}\]?(?: [^\n]*)?\n(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if section is None:
        raise PackagesError(f"CHANGELOG.md has no section '## {heading}', and pyproject.toml's version is {version}")
    if not section[1].strip():
        raise PackagesError(
            f"CHANGELOG.md: the section '## {heading}' is empty, and pyproject.toml's version is {version}"
        )


def copy_sources(target: Path) -> None:
    """Copy what a package is built from: the files that git knows, with the same modes on every machine."""
    for name in _git("ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *_SOURCES).split("\0"):
        if name and (ROOT / name).is_file():  # git also names files that are removed but not committed
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, path)
            path.chmod(0o755 if os.access(ROOT / name, os.X_OK) else 0o644)


def _connectors_source(folder: Path, version: str) -> Path:
    shutil.copytree(_CONNECTORS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for jar in artifacts.connectors():
        shutil.copyfile(jar, folder / "event_trigger_connectors" / jar.name)
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    (folder / "VERSION").write_text(f"{version}\n")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _uv_build(kind: str, source: Path, output: Path, epoch: int) -> Path:
    """Build an sdist or a wheel of the project in ``source``; the file."""
    before = set(output.glob("*"))
    command = [str(Path(sys.executable).parent / "uv"), "build", "--quiet", f"--{kind}", "--out-dir", str(output)]
    command += ["--python", sys.executable, "--no-create-gitignore"]
    command += ["--build-constraint", str(_BUILD_LOCK), "--require-hashes", str(source)]
    result = subprocess.run(
        command,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        umask=0o022,
    )
    if result.returncode != 0:
        raise PackagesError(f"{' '.join(command)} ended with {result.returncode}: {result.stderr[-2000:]}")
    (file,) = set(output.glob("*")) - before
    return file


def _repack(sdist: Path, epoch: int) -> None:
    """Write an sdist anew: sorted, with one time and no owners. setuptools gives its files the time of the build."""
    part = sdist.with_suffix(".part")
    with (
        tarfile.open(sdist) as archive,
        part.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as zipped,
        tarfile.open(mode="w", fileobj=zipped, format=tarfile.PAX_FORMAT) as packed,
    ):
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            content = archive.extractfile(member) if member.isfile() else None
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            packed.addfile(member, content)
    part.replace(sdist)


def _epoch() -> int:
    """The time that files get: $SOURCE_DATE_EPOCH, or when the newest commit was made."""
    value = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct").strip()
    if not value.isdecimal() or int(value) < _EARLIEST_OF_ZIP:
        raise PackagesError(f"SOURCE_DATE_EPOCH is {value!r}; allowed: seconds since 1970, from {_EARLIEST_OF_ZIP} on")
    return int(value)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise PackagesError(f"{' '.join(command)} ended with {result.returncode}: {result.stderr.strip()[-500:]}")
    return result.stdout


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
