"""``make lock-jars``: writes the list of the jars that may come from a Maven repository.

A line is SHA-256, name, GROUP:ARTIFACT:VERSION and licence. The jars are fetched anew into an empty cache. Look at the
difference before it is committed: every clone and every release then takes exactly these bytes.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from runners.flink import artifacts

OWN: Final = ("beam-overrides.jar", "event-trigger-connectors.jar")
UNKNOWN: Final = "unknown"
_POM: Final = "{http://maven.apache.org/POM/4.0.0}"


def main() -> None:
    """Write the list."""
    with tempfile.TemporaryDirectory(prefix="event-trigger-jars-") as cache:
        os.environ["EVENT_TRIGGER_CACHE"] = cache
        os.environ.pop("EVENT_TRIGGER_CONNECTORS", None)
        artifacts.check_jars = lambda folder: None
        written = list(lines(_fetched(), _repository()))
    artifacts.JAR_LIST.write_text("".join(f"{line}\n" for line in written))
    sys.stdout.write(f"{artifacts.JAR_LIST}: {len(written)} jars\n")


def lines(jars: Iterable[Path], repository: Path) -> Iterator[str]:
    """The list's lines by name, as Maven's local repository knows the jars; what is built here is none of them."""
    by_name = {path.name: path for path in repository.rglob("*.jar")}
    for jar in sorted({jar.name: jar for jar in jars if jar.name not in OWN}.values(), key=lambda jar: jar.name):
        digest = hashlib.sha256(jar.read_bytes()).hexdigest()
        folder = by_name[jar.name].relative_to(repository).parent
        group, artifact, version = ".".join(folder.parts[:-2]), folder.parts[-2], folder.parts[-1]
        licence = _licence(repository, group, artifact, version)
        yield f"{digest} {jar.name} {group}:{artifact}:{version} {licence}"


def _licence(repository: Path, group: str, artifact: str, version: str) -> str:
    """The licences that the artifact's POM names, or else those of its nearest parent that names any."""
    for _ in range(10):
        pom = repository.joinpath(*group.split("."), artifact, version, f"{artifact}-{version}.pom")
        if not pom.is_file():
            break
        root = ElementTree.parse(pom).getroot()  # noqa: S314
        prefix = _POM if root.tag.startswith(_POM) else ""
        names = [element.text or "" for element in root.iterfind(f"{prefix}licenses/{prefix}license/{prefix}name")]
        if names:
            return " AND ".join(" ".join(name.split()) for name in names)
        parent = root.find(f"{prefix}parent")
        if parent is None:
            break
        group, artifact, version = (
            parent.findtext(f"{prefix}{name}", "") for name in ("groupId", "artifactId", "version")
        )
    return UNKNOWN


def _fetched() -> list[Path]:
    return [
        *artifacts.connectors(),
        *artifacts.kafka_jars(),
        *artifacts.zookeeper_jars(),
        *artifacts.s3_plugin().glob("*.jar"),
        artifacts.msk_iam_jar(),
        artifacts.operator_api_jar(),
    ]


def _repository() -> Path:
    asked = ["mvn", "-q", "-B", "help:evaluate", "-Dexpression=settings.localRepository", "-DforceStdout"]
    return Path(subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
