"""The parts of a cluster, downloaded or built once and kept in a cache: Flink, plugins, connectors, Kafka, ZooKeeper.

Each artifact is a folder of the cache, named by its version (or the hash of its sources). It is built beside its final
place under a file lock and renamed when it is complete. Progress goes to stderr. Functions that download or build raise
LocalStackError.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from runners.flink.errors import LocalStackError
from runners.flink.local.processes import tail

FLINK_VERSION = "1.19.3"
KAFKA_VERSION = "4.1.2"
ZOOKEEPER_VERSION = "3.9.3"
JAVA_NEEDED = (17, 21)  # our classes need 17; Flink 1.19 is known up to 21

_FLINK_SDIST = f"apache-flink-libraries-{FLINK_VERSION}.tar.gz"
_FLINK_SDIST_SHA256 = "4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60"
CONNECTORS_PACKAGE = "event-trigger-connectors"
_CONNECTORS_MODULE = "event_trigger_connectors"
# pip asks the setup.py of what it downloads for the name and version, and fetches what that needs, without a hash. This
# answers in its place, so that nothing of an archive is run, whatever it is.
_NO_BACKEND = f"""\
import pathlib, sys

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    name = "apache_flink_libraries-{FLINK_VERSION}.dist-info"
    folder = pathlib.Path(directory, name)
    folder.mkdir()
    folder.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\\nName: apache-flink-libraries\\nVersion: {FLINK_VERSION}\\n"
    )
    return name

__legacy__ = sys.modules[__name__]
"""
_HERE = Path(__file__).resolve().parent
_CONNECTORS_SOURCE = _HERE / "connectors"
_KAFKA_POM = _HERE / "kafka" / "pom.xml"
_ZOOKEEPER_POM = _HERE / "zookeeper" / "pom.xml"
_S3_PLUGIN = f"flink-s3-fs-hadoop-{FLINK_VERSION}.jar"
_MSK_IAM_VERSION = "2.3.5"
_MSK_IAM_JAR = f"aws-msk-iam-auth-{_MSK_IAM_VERSION}-all.jar"
_OPERATOR_VERSION = "1.10.0"
_OPERATOR_API_JAR = f"flink-kubernetes-operator-api-{_OPERATOR_VERSION}.jar"
# What may come from a Maven repository: SHA-256, name, coordinates and licence of each jar (``make lock-jars``).
JAR_LIST = _HERE / "jars.txt"
_KEPT_CONNECTORS = 3
_IN_USE_S = 24 * 3600.0


def cache_dir() -> Path:
    """The cache: $EVENT_TRIGGER_CACHE, or ~/.cache/event-trigger."""
    configured = os.environ.get("EVENT_TRIGGER_CACHE")
    return Path(configured).expanduser().resolve() if configured else Path.home() / ".cache" / "event-trigger"


def flink_home() -> Path:
    """A Flink distribution: bin/bash-java-utils.jar, lib/, opt/ and plugins/; about 230 MB are downloaded once."""
    return cached(f"flink-{FLINK_VERSION}", _fetch_flink)


def connectors() -> list[Path]:
    """The jars for a cluster's lib/: our connectors and their dependencies, Beam's Flink runner included.

    $EVENT_TRIGGER_CONNECTORS may name a folder that has them. In a checkout Maven builds them when their sources have
    changed since the last build. Elsewhere they are those of the package event-trigger-connectors.
    """
    configured = os.environ.get("EVENT_TRIGGER_CONNECTORS")
    if configured:
        return _jars(Path(configured), f"EVENT_TRIGGER_CONNECTORS={configured}")
    if not _has_connectors_source():
        return _jars(_installed_connectors(), CONNECTORS_PACKAGE)
    folder = cached(_connectors_folder(), _build_connectors)
    _remove_old_connectors(folder)
    return _jars(folder, "connectors")


def built_connectors() -> Path | None:
    """The folder where ``connectors`` finds jars without building; None if it has to build them with Maven.

    Raises:
        LocalStackError: there is nothing to build them from, and the package with them is not installed.
    """
    configured = os.environ.get("EVENT_TRIGGER_CONNECTORS")
    if not configured and not _has_connectors_source():
        return _installed_connectors()
    folder = Path(configured) if configured else cache_dir() / _connectors_folder()
    return folder if folder.is_dir() else None


def _has_connectors_source() -> bool:
    return (_CONNECTORS_SOURCE / "pom.xml").is_file()


def _installed_connectors() -> Path:
    """The folder of the package with the jars, which has to be of this package's release."""
    spec = importlib.util.find_spec(_CONNECTORS_MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise LocalStackError(
            f"connectors: {CONNECTORS_PACKAGE} is not installed; install its wheel, which lies beside this package's, "
            "or set EVENT_TRIGGER_CONNECTORS to a folder with the jars"
        )
    ours, theirs = (importlib.metadata.version(name) for name in ("event-trigger", CONNECTORS_PACKAGE))
    if ours != theirs:
        raise LocalStackError(
            f"connectors: {CONNECTORS_PACKAGE} is {theirs}, event-trigger is {ours}; install both of one release"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _connectors_folder() -> str:
    return f"connectors-{connectors_digest()[:16]}"


def connectors_digest() -> str:
    """SHA-256 over the connectors' pom.xml and src/main, names included."""
    digest = hashlib.sha256()
    main = _CONNECTORS_SOURCE / "src" / "main"
    for path in [_CONNECTORS_SOURCE / "pom.xml", *sorted(p for p in main.rglob("*") if p.is_file())]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_CONNECTORS_SOURCE)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def kafka_jars() -> list[Path]:
    """The class path of a Kafka broker in KRaft mode (kafka.Kafka, kafka.tools.StorageTool), logging included."""
    return _jars_of_pom("kafka", KAFKA_VERSION, _KAFKA_POM, 45)


def zookeeper_jars() -> list[Path]:
    """The class path of a ZooKeeper server (org.apache.zookeeper.server.quorum.QuorumPeerMain), logging included."""
    return _jars_of_pom("zookeeper", ZOOKEEPER_VERSION, _ZOOKEEPER_POM, 12)


def s3_plugin() -> Path:
    """The plugin folder with Flink's S3 file system (``s3://``, by Hadoop's S3A)."""
    return cached(f"flink-s3-{FLINK_VERSION}", _fetch_s3_plugin) / "s3-fs-hadoop"


def msk_iam_jar() -> Path:
    """The jar by which Java's clients log in to Amazon MSK with IAM; only jobs with such brokers need it."""
    return cached(f"msk-iam-{_MSK_IAM_VERSION}", _fetch_msk_iam_jar) / _MSK_IAM_JAR


def operator_api_jar() -> Path:
    """The jar of the Flink Kubernetes Operator with its CRDs, in META-INF/fabric8; only tests need it."""
    return cached(f"operator-api-{_OPERATOR_VERSION}", _fetch_operator_api_jar) / _OPERATOR_API_JAR


def java() -> str:
    """The path of a Java of the versions in ``JAVA_NEEDED``, from $JAVA_HOME or the PATH."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    needed = f"needed: Java {JAVA_NEEDED[0]} to {JAVA_NEEDED[1]}, on the PATH or by JAVA_HOME"
    if program is None:
        raise LocalStackError(f"java: not found{f' in JAVA_HOME={home}' if home else ''}; {needed}")
    # Where a program is a script that starts another, it finds that on the PATH; of secrets it needs none.
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    output = subprocess.run([program, "-version"], capture_output=True, text=True, check=False, env=environment).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', output)
    if version is None or not JAVA_NEEDED[0] <= int(version[1]) <= JAVA_NEEDED[1]:
        raise LocalStackError(f"java: {program} is {output.splitlines()[:1] or 'of an unknown version'}; {needed}")
    return program


def _fetch_flink(folder: Path) -> None:
    with _temporary_directory(folder) as download:
        _report(f"Flink {FLINK_VERSION}: downloading (230 MB) ...")
        wanted = download / "requirements.txt"
        wanted.write_text(f"apache-flink-libraries=={FLINK_VERSION} --hash=sha256:{_FLINK_SDIST_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--dest", str(download), "--require-hashes", "--requirement", str(wanted)]
        command += ["--use-pep517", "--no-build-isolation"]
        backend = download / "backend" / "setuptools"
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        (backend / "build_meta.py").write_text(_NO_BACKEND)
        environment = {"PYTHONPATH": str(backend.parent), "SETUPTOOLS_USE_DISTUTILS": "stdlib"}
        hint = "this Python needs pip (python -m ensurepip) and access to a package index"
        _run("pip", command, hint=hint, environment=environment)
        sdist = download / _FLINK_SDIST
        _check_sha256(sdist, _FLINK_SDIST_SHA256)
        _report(f"Flink {FLINK_VERSION}: unpacking ...")
        prefix = f"{_FLINK_SDIST.removesuffix('.tar.gz')}/deps/"
        with tarfile.open(sdist) as archive:
            for member in archive:
                if member.name.startswith(prefix):
                    member.name = member.name.removeprefix(prefix)
                    archive.extract(member, folder, filter="data")


def _build_connectors(folder: Path) -> None:
    with _temporary_directory(folder) as work:
        # Built in a copy: the sources may be read-only, and another process may be building in them.
        source = work / "connectors"
        shutil.copytree(_CONNECTORS_SOURCE, source, ignore=shutil.ignore_patterns("target"))
        _report("connectors: building with Maven (minutes on a machine that has never done it) ...")
        _maven(["-DskipTests", "package"], source)
        built = [*source.glob("target/*.jar"), *source.glob("target/lib/*.jar")]
        if not any(jar.parent.name == "target" for jar in built):
            raise LocalStackError("connectors: Maven succeeded but made no jar in target/")
        check_jars(source / "target" / "lib")
        for jar in built:
            shutil.move(jar, folder / jar.name)


def _jars_of_pom(name: str, version: str, pom: Path, megabytes: int) -> list[Path]:
    """The jars that a pom.xml depends on."""
    if not pom.is_file():
        raise LocalStackError(f"{name} {version}: {pom} is missing (an installed package carries none)")

    def fetch(folder: Path) -> None:
        with _temporary_directory(folder) as work:
            shutil.copy(pom, work / "pom.xml")
            _report(f"{name} {version}: fetching its jars with Maven ({megabytes} MB) ...")
            _maven(["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"], work)
        check_jars(folder)

    return _jars(cached(f"{name}-{version}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}", fetch), name)


def _fetch_s3_plugin(folder: Path) -> None:
    plugin = folder / "s3-fs-hadoop"
    _fetch_jar(f"org.apache.flink:flink-s3-fs-hadoop:{FLINK_VERSION}", plugin / _S3_PLUGIN, 31)


def _fetch_msk_iam_jar(folder: Path) -> None:
    _fetch_jar(f"software.amazon.msk:aws-msk-iam-auth:{_MSK_IAM_VERSION}:jar:all", folder / _MSK_IAM_JAR, 14)


def _fetch_operator_api_jar(folder: Path) -> None:
    artifact = f"org.apache.flink:flink-kubernetes-operator-api:{_OPERATOR_VERSION}"
    _fetch_jar(artifact, folder / _OPERATOR_API_JAR, 1)


def _fetch_jar(artifact: str, jar: Path, megabytes: int) -> None:
    jar.parent.mkdir(exist_ok=True)
    with _temporary_directory(jar.parent) as work:
        _report(f"{jar.name}: fetching it with Maven ({megabytes} MB) ...")
        _maven(["dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={jar.parent}"], work)
    check_jars(jar.parent)
    if not jar.is_file():
        raise LocalStackError(f"{jar.name}: was not downloaded; found {[p.name for p in jar.parent.iterdir()]}")


def _maven(goals: Sequence[str], folder: Path) -> None:
    java()
    if shutil.which("mvn") is None:
        raise LocalStackError("mvn: not found on the PATH; needed: Apache Maven 3.8 or newer")
    _run("mvn", ["mvn", "-q", "-B", *goals], cwd=folder, hint="for downloads, Maven needs access to a repository")


def _run(
    name: str,
    command: Sequence[str],
    *,
    hint: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    env = {**os.environ, **(environment or {})}
    with tempfile.NamedTemporaryFile(prefix=f"event-trigger-{name}-", suffix=".log") as log:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, env=env, check=False
        )
        if result.returncode != 0:
            problem = f"{name}: {' '.join(command)} ended with {result.returncode}; {hint}"
            raise LocalStackError(f"{problem}. Its output ended:\n{tail(Path(log.name))}")


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache; ``make`` fills it if it is not there, in one process at a time."""
    folder = cache_dir() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent / f".{name}.lock", name):
            if folder.is_dir():  # another process made it while this one waited
                return folder
            for left_over in folder.parent.glob(f".{name}.part-*"):
                shutil.rmtree(left_over, ignore_errors=True)
            part = Path(tempfile.mkdtemp(prefix=f".{name}.part-", dir=folder.parent))
            started = time.monotonic()
            try:
                make(part)
                part.chmod(0o755)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
            _report(f"{name}: ready after {time.monotonic() - started:.0f} s in {folder}")
    except OSError as error:
        raise LocalStackError(f"{name}: cannot be put into the cache {folder.parent}: {error}") from error
    return folder


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _report(f"{name}: another process is making it, waiting ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _temporary_directory(folder: Path) -> Iterator[Path]:
    """A folder for intermediate files inside ``folder``: on the same disk, and removed with it."""
    with tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as work:
        yield Path(work)


def check_jars(folder: Path) -> None:
    """Check every jar of a folder against the list: a repository, or whoever is between, may give others."""
    lines = (line.split() for line in JAR_LIST.read_text().splitlines())
    listed = {name: digest for digest, name, *_ in lines}
    for jar in sorted(folder.glob("*.jar")):
        if jar.name not in listed:
            raise LocalStackError(
                f"{jar.name}: not in {JAR_LIST.name}; if a pom.xml was changed on purpose, see what is new and write "
                "the list with `make lock-jars`"
            )
        _check_sha256(jar, listed[jar.name])


def _check_sha256(path: Path, expected: str) -> None:
    if not path.is_file():
        raise LocalStackError(f"{path.name}: was not downloaded; found {[p.name for p in path.parent.iterdir()]}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise LocalStackError(f"{path.name}: SHA-256 is {digest}, expected {expected}")


def _remove_old_connectors(current: Path) -> None:
    """Remove all but the last builds: every change of the sources makes another one of tens of MB.

    A build that was used within the last day stays: a cluster may run on it.
    """
    os.utime(current)
    last_used = {path: path.stat().st_mtime for path in current.parent.glob("connectors-*") if path.is_dir()}
    for old in sorted(last_used, key=lambda path: last_used[path], reverse=True)[_KEPT_CONNECTORS:]:
        if last_used[old] < time.time() - _IN_USE_S:
            shutil.rmtree(old, ignore_errors=True)


def _jars(folder: Path, name: str) -> list[Path]:
    jars = sorted(folder.glob("*.jar"))
    if not jars:
        raise LocalStackError(f"{name}: no *.jar in {folder}")
    return jars


def _report(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{connectors()[0].parent}\n")
    except LocalStackError as error:
        sys.exit(f"error: {error}")
