"""`make infra-tools`, and for `make image`: programs that tests run and that no Python package contains.

On a machine with apt-get, root gets Debian's packages installed; otherwise one error names all missing programs.
The module runs before `make setup`, so it imports the standard library alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# What no package of Debian has new enough: the lowest version, how to ask for it, where it stands in the answer, and
# where to get it. Debian's kubectl cannot read the patches of infra/kubernetes.
GIVEN: Mapping[str, tuple[tuple[int, int], Sequence[str], str, str]] = {
    "terraform": ((1, 11), ("version", "-json"), "terraform_version", "hashicorp.com, Terraform, Install"),
    "kubectl": ((1, 27), ("version", "--client", "-o=json"), "gitVersion", "kubernetes.io, Install tools"),
}
# Program -> Debian's package of it.
FAST: Mapping[str, str] = {
    "shellcheck": "shellcheck",
    "cloud-init": "cloud-init",
    "systemd-analyze": "systemd",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "docker-compose": "docker-compose",  # reads a file also where there is no engine
}
LONG: Mapping[str, str] = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "mkfs.xfs": "xfsprogs",
    "losetup": "mount",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
IMAGE: Mapping[str, str] = {
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
    "podman": "podman",
    "runc": "runc",
}
# Installed for its schema: it must not take over a machine that is no cloud instance of ours.
_CLOUD_INIT_OFF = Path("/etc/cloud/cloud-init.disabled")
# Installed for its programs: a unit that is a link to nothing is not started (systemctl mask).
_PROMETHEUS_UNIT = Path("/etc/systemd/system/prometheus.service")


class ToolsError(RuntimeError):
    """Programs are missing and cannot be installed; the message names them all and says how to get them."""


def provide_for_image() -> None:
    """Have what builds and runs the container image on the PATH.

    Raises:
        ToolsError: something is missing.
    """
    missing = _missing(IMAGE)
    packages = sorted({IMAGE[program] for program in missing})
    failure = "not root on Debian or Ubuntu"
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        failure = _install(packages)
    if _missing(IMAGE):
        raise ToolsError(f"Not on the PATH: {', '.join(missing)} (Debian's {' '.join(packages)}): {failure}.")


def provide(programs: Mapping[str, str]) -> None:
    """Have ``programs`` on the PATH, installed from Debian's packages where that is possible, and those of ``GIVEN``.

    Raises:
        ToolsError: something is missing.
    """
    problems = [f"{problem}." for program in GIVEN if (problem := _problem(program))]
    missing = _missing(programs)
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        failure = _install(sorted({programs[program] for program in missing}))
        missing = _missing(programs)
        if missing:
            raise ToolsError(_message(programs, missing, problems, failure))
    if missing or problems:
        raise ToolsError(_message(programs, missing, problems))


def _missing(programs: Mapping[str, str]) -> list[str]:
    return [program for program in programs if shutil.which(program) is None]


def _message(programs: Mapping[str, str], missing: Sequence[str], problems: Sequence[str], failure: str = "") -> str:
    parts = ["Some tests cannot run on this machine: those of infra/, and of the page in a browser.", *problems]
    if missing:
        packages = " ".join(sorted({programs[program] for program in missing}))
        how = f"apt-get failed: {failure}" if failure else f"as root on Debian or Ubuntu: make infra-tools ({packages})"
        parts.append(f"Not on the PATH: {', '.join(missing)}; {how}.")
    parts.append(
        "All other tests: make setup, then "
        ".venv/bin/python -m pytest --ignore=tests/infra --ignore=tests/kubernetes -m 'not browser'"
    )
    return "\n".join(parts)


def _problem(program: str) -> str:
    """The problem with a program of ``GIVEN``, and what to do about it; empty if there is none."""
    lowest, arguments, key, place = GIVEN[program]
    advice = f"install {'.'.join(map(str, lowest))} or newer ({place})"
    if shutil.which(program) is None:
        return f"{program} is not on the PATH: {advice}"
    environment = {**os.environ, "CHECKPOINT_DISABLE": "1"}
    result = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)
    found = re.search(rf'"{key}": *"v?((\d+)\.(\d+)[^"]*)"', result.stdout)
    if result.returncode != 0 or found is None:
        return f"{program} {' '.join(arguments)} does not tell its version: {advice}: {result.stderr.strip()}"
    return "" if (int(found[2]), int(found[3])) >= lowest else f"{program} is {found[1]}: {advice}"


def _install(packages: Sequence[str]) -> str:
    """Why apt-get could not install them; empty if it could."""
    sys.stderr.write(f"Installing from Debian's packages: {' '.join(packages)}\n")
    if "cloud-init" in packages:
        _CLOUD_INIT_OFF.parent.mkdir(parents=True, exist_ok=True)
        _CLOUD_INIT_OFF.touch()
    if "prometheus" in packages and not _PROMETHEUS_UNIT.is_symlink():
        _PROMETHEUS_UNIT.parent.mkdir(parents=True, exist_ok=True)
        _PROMETHEUS_UNIT.symlink_to("/dev/null")
    options = ["-qq", "-o", "DPkg::Lock::Timeout=300"]
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        result = subprocess.run(
            ["apt-get", *options, *command],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if result.returncode != 0:
            return (result.stderr or result.stdout).strip()[-1000:]
    return ""


if __name__ == "__main__":
    try:
        if "--image" in sys.argv[1:]:
            provide_for_image()
        else:
            provide({**FAST, **LONG} if "--long" in sys.argv[1:] else FAST)
    except ToolsError as error:
        sys.exit(str(error))
