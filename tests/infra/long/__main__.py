"""`make test-infra`: downloads for the long tests, runs them in a network namespace, writes the result.

Prepared, each kept for the next run: the release (build/release), a Python environment with moto, and in
~/.cache/event-trigger a Debian root file system that stands for the machine image.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from infra.release import __main__ as release
from runners.flink import artifacts
from tests import moto
from tests.infra.long.machines import HOST, clear, contained
from tests.infra.terraform import ROOT

RESULT = ROOT / "docs" / "infrastructure-test.md"
PACKAGES = (
    "systemd,systemd-sysv,dbus,cloud-init,openjdk-17-jre-headless,python3.11,curl,xfsprogs,iproute2,ca-certificates,"
    "logrotate,procps"
)
# Disks of the machines; the last failed run's stay until the next.
MACHINES = Path("/var/tmp/event-trigger-machines")  # noqa: S108 - a fixed place, so that the next run finds it


def main() -> int:
    """Run the tests; pytest's exit code."""
    if os.geteuid() != 0:
        sys.exit("make test-infra: machines and network namespaces need root")
    tried = subprocess.run(contained("true"), capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        # The one thing that no preparation can help.
        sys.stderr.write(f"make test-infra: SKIPPED, this kernel forbids namespaces: {tried.stderr}")
        return 0
    with MACHINES.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"make test-infra: another run is under way on this machine; it holds {lock.name}")
        clear(MACHINES)
        status = test(prepare())
        if status == 0:
            clear(MACHINES)
    return status


def prepare() -> dict[str, str]:
    """Download everything that needs the network; the environment variables that lead the tests to it."""
    digest = hashlib.sha256(moto.REQUIREMENTS.read_bytes() + PACKAGES.encode()).hexdigest()[:16]
    cache = artifacts.cache_dir()
    tools, rootfs = moto.packages(), cache / f"infra-rootfs-{digest}"
    if not rootfs.is_dir():
        part = cache / f".{rootfs.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(part))
        shutil.copytree(tools, part / "opt" / "aws")
        files = {
            "usr/bin/aws": '#!/bin/sh\nPYTHONPATH=/opt/aws exec python3.11 -m awscli "$@"\n',
            # Machines find moto where they would find AWS.
            "etc/systemd/system.conf.d/endpoint.conf": f"[Manager]\nDefaultEnvironment=AWS_ENDPOINT_URL=http://{HOST}:5000\n",
            "etc/cloud/cloud.cfg.d/99-test.cfg": (
                "datasource_list: [NoCloud]\nnetwork: {config: disabled}\nlocale: false\n"
            ),
            "etc/machine-id": "",
        }
        for name, content in files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (part / "usr/bin/aws").chmod(0o755)
        part.rename(rootfs)
    output = ROOT / "build" / "release"
    release.build(output)
    artifacts.kafka_jars()
    return {"EVENT_TRIGGER_INFRA_TOOLS": str(tools), "EVENT_TRIGGER_INFRA_ROOTFS": str(rootfs)}


def run(*command: str) -> None:
    """Run a command; ends everything with its output if it fails."""
    result = subprocess.run(["nice", *command], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {result.returncode}: {(result.stdout + result.stderr)[-3000:]}")


def test(environment: dict[str, str]) -> int:
    """Run pytest in a network namespace of its own; its exit code."""
    report = ROOT / "build" / "test-infra.xml"
    folder = ROOT / "tests" / "infra" / "long"
    arguments = ["-v", f"--junit-xml={report}", "--timeout=3600", *sys.argv[1:]]
    started = time.monotonic()
    status = subprocess.run(
        contained(sys.executable, "-m", "pytest", *map(str, sorted(folder.glob("check_*.py"))), *arguments),
        cwd=ROOT,
        env={
            **os.environ,
            **environment,
            "PYTHONPATH": str(ROOT),
            "EVENT_TRIGGER_INFRA_MACHINES": str(MACHINES),
        },
        check=False,
    ).returncode
    if not sys.argv[1:]:
        write_result(report, time.monotonic() - started)
    return status


def write_result(report: Path, seconds: float) -> None:
    """The last result, to be committed."""
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - our own file
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        "# Last run of `make test-infra`",
        "",
        f"{time.strftime('%Y-%m-%d')}, commit {commit}, {seconds:.0f} s, Linux {os.uname().release}.",
        "",
        "| test | result | s |",
        "|---|---|---|",
    ]
    for case in cases:
        result = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        name = str(case.get("name")).removeprefix("test_").replace("_", " ")
        lines.append(f"| {name} | {result} | {float(case.get('time') or 0):.0f} |")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
