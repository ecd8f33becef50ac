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
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.packages.__main__ import ROOT, project_version
from infra.release import bill, contents
from runners.flink import artifacts
from runners.flink.errors import FlinkRunnerError

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


def build(output: Path, jars: Sequence[Path] = ()) -> dict[str, dict[str, str | int]]:
    """Write the archives and manifest.json into ``output``; the manifest.

    Archives of earlier releases stay, so that a cluster can go back to them.
    """
    output.mkdir(parents=True, exist_ok=True)
    version = project_version()
    archives: dict[str, tuple[str, Callable[[Path], None]]] = {
        "flink": (artifacts.FLINK_VERSION, lambda folder: contents.flink(folder, jars)),
        "python": (version, contents.python),
        "zookeeper": (artifacts.ZOOKEEPER_VERSION, contents.zookeeper),
    }
    manifest: dict[str, dict[str, str | int]] = {}
    components = list(bill.os_packages())
    for name, (archive_version, fill) in archives.items():
        with tempfile.TemporaryDirectory(prefix=f"release-{name}-", dir=output) as folder:
            content = Path(folder, name)
            content.mkdir()
            fill(content)
            components += contents.components(content)
            manifest[name] = _pack(content, output, f"{name}-{archive_version}")
    bill.write(output, version, components)
    (output / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
