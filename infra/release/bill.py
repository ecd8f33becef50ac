"""The bill of materials of a release or an image, in the form of CycloneDX 1.6, and its licences as a list.

It names what they hold: Python packages with what pycurl bundles, jars with what is shaded into them, an image's Debian
packages, and those that nodes install from their operating system's repository, whose versions are the machine image's.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import tarfile
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from infra.release.jars import OWN, UNKNOWN
from runners.flink import artifacts
from runners.flink.errors import FlinkRunnerError

_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_NAMESPACE: Final = uuid.UUID("5f1d7a52-6c6c-4f6e-9a51-0d2f7c5a3c11")
_POM_PROPERTIES: Final = re.compile(r"META-INF/maven/[^/]+/[^/]+/pom\.properties")
_OS_PACKAGES: Final = re.compile(r'variable "os_packages" \{.*?default\s*=\s*\[(.*?)\]', re.DOTALL)
_COPYRIGHT: Final = re.compile(r"usr/share/doc/([^/]+)/copyright")
_LICENCE_FIELD: Final = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.M)
# What licences are called in metadata; others are listed as they are written.
_APACHE: Final = re.compile(
    r"(?i)(the )?apache([ -](software )?licen[cs]e)?[, -]*(version |v\.? ?)?2(\.0)?( licen[cs]e)?"
    r"|apache software licen[cs]e"
)
_MIT: Final = re.compile(r"(?i)(the )?mit( licen[cs]e)?( \(mit\))?")


class ReleaseError(FlinkRunnerError, RuntimeError):
    """A tool failed or a file is missing; the message says which."""


@dataclass(frozen=True)
class Component:
    """A package of the release.

    Attributes:
        ecosystem: ``pypi``, ``maven``, ``generic``, ``rpm`` or ``deb``.
        name: its name there; of Maven GROUP:ARTIFACT.
        version: empty if it is the machine image's.
        parts: what is shaded into a jar.
    """

    ecosystem: str
    name: str
    version: str
    licence: str = UNKNOWN
    sha256: str | None = None
    parts: tuple[Component, ...] = field(default=())

    @property
    def purl(self) -> str:
        """The package URL."""
        path = "/".join(quote(part, safe="") for part in self.name.split(":"))
        return f"pkg:{self.ecosystem}/{path}" + (f"@{quote(self.version, safe='')}" if self.version else "")

    def document(self) -> dict[str, Any]:
        """The component as CycloneDX has it."""
        group, _, name = self.name.rpartition(":")
        shown: dict[str, Any] = {"type": "library", **({"group": group} if group else {}), "name": name}
        shown |= {"version": self.version} if self.version else {}
        if self.sha256 is not None:
            shown["hashes"] = [{"alg": "SHA-256", "content": self.sha256}]
        if self.licence != UNKNOWN:
            shown["licenses"] = [{"license": {"name": self.licence}}]
        shown["purl"] = self.purl
        if self.parts:
            shown["components"] = [part.document() for part in self.parts]
        return shown


def write(output: Path, version: str, components: Iterable[Component], kind: str = "application") -> list[Path]:
    """Write bom.cdx.json and licences.csv into ``output``; the same content gives the same bytes.

    ``kind`` is what they are about, as CycloneDX calls it: an ``application`` or a ``container``.
    """
    unique = {(found.purl, found.sha256): found for found in components}
    ordered = [unique[key] for key in sorted(unique, key=lambda key: (key[0], key[1] or ""))]
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": kind, "name": "event-trigger", "version": version}},
        "components": [component.document() for component in ordered],
    }
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, json.dumps(bill, sort_keys=True))}"
    listed = io.StringIO()
    table = csv.writer(listed, lineterminator="\n")
    table.writerow(("licence", "package"))
    table.writerows(sorted((found.licence, found.purl) for found in ordered))
    written = {"bom.cdx.json": json.dumps(bill, indent=1) + "\n", "licences.csv": listed.getvalue()}
    for name, text in written.items():
        (output / name).write_text(text)
    return [output / name for name in written]


def python_packages(site_packages: Path) -> Iterator[Component]:
    """The packages of a site-packages folder."""
    for file in sorted(site_packages.glob("*.dist-info/METADATA")):
        metadata = Parser().parsestr(file.read_text("utf-8"), headersonly=True)
        kinds = [
            line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", ()) if line.startswith("License")
        ]
        text = " ".join(metadata.get("License", "").split())
        # Some packages have the whole text there.
        licence = metadata.get("License-Expression") or " AND ".join(kinds) or (text if len(text) < 100 else "")
        yield Component("pypi", _normal(metadata["Name"]), metadata["Version"], _known(licence or UNKNOWN))


def native_libraries(lines: str) -> Iterator[Component]:
    """What pycurl's wheel bundles, from lines as ``OpenSSL/3.5.1``."""
    for line in lines.splitlines():
        name, _, version = line.partition("/")
        if version and name != "PycURL":
            yield Component("generic", name.lower(), version)


def jars(folder: Path) -> Iterator[Component]:
    """The jars below a folder, each with what is shaded into it."""
    listed = {}
    for line in artifacts.JAR_LIST.read_text().splitlines():
        digest, _, coordinates, licence = line.split(" ", 3)
        listed[digest] = coordinates, licence
    for jar in sorted(path for path in folder.rglob("*.jar") if not path.is_symlink()):
        digest = hashlib.sha256(jar.read_bytes()).hexdigest()
        inside = dict(_inside(jar))
        if digest in listed:
            coordinates, licence = listed[digest]
        else:
            coordinates, licence = _guessed(jar, inside), UNKNOWN
        name, _, version = coordinates.rpartition(":")
        if licence == UNKNOWN and (name.startswith("org.apache.") or jar.name in OWN):
            licence = "Apache-2.0"
        parts = tuple(Component("maven", part, inside[part]) for part in sorted(inside) if part != name)
        yield Component("maven", name, version, _known(licence), digest, parts)


def os_packages() -> Iterator[Component]:
    """The packages that nodes install when they boot first, by the default of ``os_packages``."""
    found = _OS_PACKAGES.search((_ROOT / "infra" / "terraform" / "variables.tf").read_text())
    for name in re.findall(r'"([^"]+)"', found[1] if found else ""):
        yield Component("rpm", f"amzn:{name}", "")


def debian_packages(archive: Path) -> Iterator[Component]:
    """The packages of a Debian in a tar archive, with the licences that their copyright files name.

    Raises:
        ReleaseError: the archive has no list of packages.
    """
    status = ""
    texts: dict[str, str] = {}
    linked: dict[str, str] = {}
    with tarfile.open(archive) as files:
        for member in files:
            name = member.name.removeprefix("./")
            if match := _COPYRIGHT.fullmatch(name):
                if file := files.extractfile(member):
                    texts[match[1]] = file.read().decode("utf-8", "replace")
            elif name == "var/lib/dpkg/status" and (file := files.extractfile(member)):
                status = file.read().decode()
            elif member.issym() and name.startswith("usr/share/doc/"):
                linked[name.removeprefix("usr/share/doc/")] = member.linkname
    if not status:
        raise ReleaseError(f"{archive}: no var/lib/dpkg/status, so no list of Debian packages")
    for package in (Parser().parsestr(text, headersonly=True) for text in status.split("\n\n") if text.strip()):
        text = texts.get(linked.get(package["Package"], package["Package"]), "")
        yield Component("deb", f"debian:{package['Package']}", package["Version"], _licence_of_copyright(text))


def _licence_of_copyright(text: str) -> str:
    """The licences in the fields of a copyright file. One without fields also names licences of mere parts."""
    fields = _LICENCE_FIELD.findall(text) if text.lstrip().startswith("Format:") else ()
    return " AND ".join(sorted({name.strip() for name in fields})) or UNKNOWN


def _inside(jar: Path) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if _POM_PROPERTIES.fullmatch(name):
                text = archive.read(name).decode("utf-8", "replace")
                given = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
                yield (
                    f"{given.get('groupId', '').strip()}:{given.get('artifactId', '').strip()}",
                    given.get("version", "").strip(),
                )


def _guessed(jar: Path, inside: dict[str, str]) -> str:
    """The coordinates of a jar that no list has: Flink's own, ours and those that the operator adds."""
    stem = jar.name.removesuffix(".jar")
    for name, version in inside.items():
        if stem in (f"{name.rpartition(':')[2]}-{version}", name.rpartition(":")[2]):
            return f"{name}:{version}"
    found = re.fullmatch(r"(.+?)-(\d[\w.-]*)", stem)
    artifact, version = (found[1], found[2]) if found else (stem, "")
    return f"{'org.apache.flink:' if stem.startswith('flink-') else ''}{artifact}:{version}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _known(licence: str) -> str:
    if _APACHE.fullmatch(licence):
        return "Apache-2.0"
    return "MIT" if _MIT.fullmatch(licence) else licence
