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
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from infra.packages.__main__ import ROOT, project_version
from infra.release import bill, contents
from runners.flink import artifacts, configuration
from runners.flink.errors import FlinkRunnerError

HERE = Path(__file__).resolve().parent

NAME = "localhost/event-trigger"
# A store of its own: that of an engine which has been used here may have another storage driver.
STORE = (
    "--root",
    str(ROOT / "build" / "image-store"),
    "--runroot",
    "/run/event-trigger-image",
    "--storage-driver",
    "vfs",
)
USER = 9999  # as in Flink's own images
# Debian's packages beside the essential ones; the Containerfile has the same list, which a test compares.
PACKAGES = ("ca-certificates", "libnss-wrapper", "openjdk-17-jre-headless", "python3.11", "tini")
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
    flink, home = root / "opt" / "flink", root / "opt" / "event-trigger"
    contents.flink(flink)
    (flink / "conf" / "base.yaml").unlink()
    configuration.write(flink / "conf", {**configuration.BASE, **SETTINGS})
    (flink / "conf" / "log4j.properties").unlink()  # containers log to standard output
    contents.python(home, ROOT / "requirements" / "all-extras.txt")
    shutil.copytree(HERE / "root", root, dirs_exist_ok=True)
    # A launch puts our jars before Flink's, so it needs them apart; links into lib/ keep them from being there twice.
    (home / "connectors").mkdir()
    for jar in artifacts.connectors():
        (flink / "lib" / jar.name).rename(home / "connectors" / jar.name)
        (flink / "lib" / jar.name).symlink_to(f"/opt/event-trigger/connectors/{jar.name}")
    (home / "cache").mkdir()
    (home / "cache" / f"flink-{artifacts.FLINK_VERSION}").symlink_to("/opt/flink")
    _write_bill(root)
    return root


def _write_bill(root: Path, debian: Iterable[bill.Component] = ()) -> None:
    home = root / "opt" / "event-trigger"
    components = [*debian, *contents.components(root / "opt" / "flink"), *contents.components(home)]
    bill.write(home, project_version(), components, "container")


def build(root: Path, output: Path) -> Path:
    """Build the image from Debian's packages and ``root``; the archive."""
    missing = [program for program in ("mmdebstrap", "buildah") if shutil.which(program) is None]
    if missing:
        raise ImageError(f"not on the PATH: {', '.join(missing)}; on Debian: apt-get install mmdebstrap buildah")
    if os.geteuid() != 0:
        raise ImageError("only root can unpack Debian's packages and build the image")
    version = project_version()
    debian = _debian()
    _write_bill(root, bill.debian_packages(debian))
    archive = output / f"event-trigger-{version}.tar"
    container = _buildah("from", "scratch")
    try:
        _buildah("add", "--quiet", container, str(debian), "/")
        _buildah("add", "--quiet", container, str(root), "/")
        user = f"flink:x:{USER}:{USER}::/data:/usr/sbin/nologin"
        # Group 0, because a user that the platform chooses is in no other group that is known here.
        folders = "mkdir -p /data /checkpoints && chown flink:root /data /checkpoints && chmod 775 /data /checkpoints"
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
        contents.run("mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, str(folder / "root.tar"))

    return artifacts.cached(f"image-debian-{digest}", make) / "root.tar"


def _buildah(command: str, *arguments: str) -> str:
    isolation = ["--isolation", "chroot"] if command == "run" else []
    return contents.run("buildah", *STORE, command, *isolation, *arguments).strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
