"""``make image``: an image for all roles, built by buildah from Debian's packages, without a daemon or a registry.

build/image/root   what the image has on top of Debian: /opt/flink, /opt/event-trigger, /docker-entrypoint.sh
build/image/event-trigger-VERSION.tar   the image, as `podman load` and `docker load` take it

With an engine, ``python -m infra.image --only_root`` and ``docker build -f infra/image/Containerfile build/image`` make
the same on top of a registry's debian:bookworm-slim.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from email.parser import Parser
from pathlib import Path
from typing import Any

from infra.packages.__main__ import project_version
from infra.release import __main__ as release
from infra.release.bill import cyclone_dx
from runners.flink import artifacts, configuration
from runners.flink.errors import FlinkRunnerError

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

NAME = "localhost/event-trigger"
USER = 9999  # as in Flink's own images
# Debian's packages beside the essential ones; the Containerfile has the same list, which a test compares.
PACKAGES = ("ca-certificates", "openjdk-17-jre-headless", "python3.11", "tini")
SUITE = "bookworm"

# Settings of every container, over those that all clusters share.
SETTINGS: Mapping[str, str] = {
    # The containers' network decides who reaches them: see docs/image.md.
    "jobmanager.bind-host": "0.0.0.0",  # noqa: S104
    "taskmanager.bind-host": "0.0.0.0",  # noqa: S104
    "rest.bind-address": "0.0.0.0",  # noqa: S104
    "jobmanager.rpc.address": "jobmanager",
    "jobmanager.memory.process.size": "1024m",
    "taskmanager.memory.process.size": "1728m",  # Python workers come on top
    "taskmanager.numberOfTaskSlots": "2",
    # The only volume; all else of the root file system may be read-only.
    "io.tmp.dirs": "/data/tmp",
    "state.backend.rocksdb.localdir": "/data/rocksdb",
    "state.checkpoints.dir": "file:///checkpoints",
    "state.savepoints.dir": "file:///checkpoints/savepoints",
    "metrics.reporter.prom.port": "9249",
}

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/opt/event-trigger/bin:/opt/flink/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": "/opt/event-trigger/site-packages",
    "PYTHONNOUSERSITE": "1",
    "LANG": "C.UTF-8",
    "FLINK_CONF_DIR": "/opt/flink/conf",
    "FLINK_LOG_DIR": "/data/log",
    "EVENT_TRIGGER_WORKER_LOG_DIR": "/data/log",
    # Where a launch finds Flink's jars and ours.
    "EVENT_TRIGGER_CACHE": "/opt/event-trigger/cache",
    "EVENT_TRIGGER_CONNECTORS": "/opt/event-trigger/connectors",
}


class ImageError(FlinkRunnerError, RuntimeError):
    """The image cannot be built; the message says why."""


def main(argv: Sequence[str]) -> int:
    """Build the image; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.image", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "image", help="folder to write to")
    parser.add_argument("--only_root", action="store_true", help="no image: the files for the Containerfile")
    arguments = parser.parse_args(argv)
    try:
        root = write_root(arguments.output / "root")
        built = root if arguments.only_root else build(root, arguments.output)
    except FlinkRunnerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{built}\n")
    return 0


def write_root(root: Path) -> Path:
    """Write what the image has on top of Debian into an empty folder."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(HERE / "root", root)
    flink, home = root / "opt" / "flink", root / "opt" / "event-trigger"
    release._flink(part := root / "flink")
    shutil.copytree(part, flink, dirs_exist_ok=True)
    shutil.rmtree(part)
    (flink / "conf" / "base.yaml").unlink()
    configuration.write(flink / "conf", {**configuration.BASE, **SETTINGS})
    (flink / "conf" / "log4j.properties").unlink()  # containers log to standard output
    release._python(home, ROOT / "requirements" / "all-extras.txt")
    # A launch puts our jars before Flink's, so it needs them apart; links into lib/ keep them from being there twice.
    (home / "connectors").mkdir()
    for jar in artifacts.connectors():
        (flink / "lib" / jar.name).rename(home / "connectors" / jar.name)
        (flink / "lib" / jar.name).symlink_to(f"/opt/event-trigger/connectors/{jar.name}")
    (home / "cache").mkdir()
    (home / "cache" / f"flink-{artifacts.FLINK_VERSION}").symlink_to("/opt/flink")
    return root


def build(root: Path, output: Path) -> Path:
    """Build the image from Debian's packages and ``root``; the archive."""
    missing = [program for program in ("mmdebstrap", "buildah") if shutil.which(program) is None]
    if missing:
        raise ImageError(f"not on the PATH: {', '.join(missing)}; on Debian: apt-get install mmdebstrap buildah")
    if os.geteuid() != 0:
        raise ImageError("only root can unpack Debian's packages and build the image")
    version = project_version()
    debian = _debian()
    bill = root / "opt" / "event-trigger" / "bill-of-materials.json"
    bill.write_text(json.dumps(bill_of_materials(debian, root, version), indent=1) + "\n")
    archive = output / f"event-trigger-{version}.tar"
    container = _buildah("from", "scratch")
    try:
        _buildah("add", "--quiet", container, str(debian), "/")
        _buildah("add", "--quiet", container, str(root), "/")
        user = f"flink:x:{USER}:{USER}::/data:/usr/sbin/nologin"
        folders = "mkdir -p /data /checkpoints && chown flink:flink /data /checkpoints"
        _buildah("run", container, "--", "sh", "-c",
                 f"echo {user} >>/etc/passwd && echo flink:x:{USER}: >>/etc/group && {folders}")  # fmt: skip
        _buildah("config", *_config(version), container)
        _buildah("commit", "--quiet", "--format", "docker", container, f"{NAME}:{version}")
    finally:
        _buildah("rm", container)
    archive.unlink(missing_ok=True)
    _buildah("push", "--quiet", f"{NAME}:{version}", f"docker-archive:{archive}:{NAME}:{version}")
    return archive


def _config(version: str) -> Iterator[str]:
    labels = {
        "title": "event-trigger",
        "description": "Turns a stream of user-tracking events into actions: a Beam pipeline that runs on Flink.",
        "version": version,
        "licenses": "Apache-2.0",
    }
    for key, value in labels.items():
        yield from ("--label", f"org.opencontainers.image.{key}={value}")
    yield from ("--label", f"event-trigger.flink={artifacts.FLINK_VERSION}")
    for key, value in ENVIRONMENT.items():
        yield from ("--env", f"{key}={value}")
    yield from ("--user", f"{USER}:{USER}", "--workingdir", "/tmp", "--volume", "/data", "--stop-signal", "SIGTERM")  # noqa: S108
    yield from ("--entrypoint", json.dumps(["/usr/bin/tini", "--", "/docker-entrypoint.sh"]), "--cmd", "--help")
    yield from ("--healthcheck", "CMD health", "--healthcheck-interval", "60s", "--healthcheck-timeout", "50s")
    yield from ("--healthcheck-start-period", "180s", "--healthcheck-retries", "3")


def _debian() -> Path:
    """An archive of a Debian with the image's packages, made once in the cache for each list of packages.

    Remove its folder to get Debian's newer versions.
    """
    digest = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:16]

    def make(folder: Path) -> None:
        sys.stderr.write("Debian: installing the image's packages (two minutes) ...\n")
        include = f"--include={','.join(PACKAGES)}"
        _run("mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, str(folder / "root.tar"))

    return artifacts._cached(f"image-debian-{digest}", make) / "root.tar"


def bill_of_materials(debian: Path, root: Path, version: str) -> dict[str, Any]:
    """What the image is made of, as a CycloneDX document: Debian's and Python's packages, jars."""
    status = _run("tar", "--extract", "--to-stdout", "--file", str(debian), "./var/lib/dpkg/status")
    found = {
        ("pkg:deb/debian/{}@{}".format(*pair), *pair)
        for pair in ((package["Package"], package["Version"]) for package in map(_headers, status.split("\n\n")))
        if all(pair)
    }
    for metadata in root.rglob("*.dist-info/METADATA"):
        package = _headers(metadata.read_text("utf-8"))
        found.add((f"pkg:pypi/{package['Name']}@{package['Version']}", package["Name"], package["Version"]))
    for jar in [*root.rglob("lib/*.jar"), *root.rglob("connectors/*.jar"), *root.rglob("plugins/*/*.jar")]:
        if not jar.is_symlink():
            name, number = jar_version(jar.stem)
            found.add((f"pkg:generic/{jar.name}", name, number or version))
    components = [
        {"type": "library", "name": name, "version": number, "purl": purl} for purl, name, number in sorted(found)
    ]
    return cyclone_dx("container", version, components)


def jar_version(stem: str) -> tuple[str, str]:
    """Name and version of a jar, from its file's name; ours have no version there."""
    match = re.fullmatch(r"(.+?)-(\d+(?:\.\d+)+.*)", stem)
    return (match[1], match[2]) if match else (stem, "")


def _headers(text: str) -> Mapping[str, str]:
    return {"Package": "", "Version": "", **dict(Parser().parsestr(text, headersonly=True).items())}


def _buildah(command: str, *arguments: str) -> str:
    isolation = ["--isolation", "chroot"] if command == "run" else []
    return _run("buildah", "--storage-driver", "vfs", command, *isolation, *arguments).strip()


def _run(*command: str) -> str:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ImageError(f"{' '.join(command)} ended with {result.returncode}: {result.stderr[-2000:]}")
    return result.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
