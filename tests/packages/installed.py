"""An environment with nothing but what `make dist` has built, in a folder where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import PAGES

UV = str(Path(sys.executable).parent / "uv")


@dataclass
class Installed:
    """A virtual environment, and an empty folder that programs run in."""

    environment: Path
    place: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, program: str, *arguments: str, deadline_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; it sees neither this checkout nor this process's variables."""
        home = os.environ.get("HOME", "/")
        return subprocess.run(
            [str(self.environment / "bin" / program), *arguments],
            cwd=self.place,
            env={
                "PATH": f"{self.environment / 'bin'}:/usr/bin:/bin",
                "HOME": home,
                "LANG": "C.UTF-8",
                **self.variables,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=deadline_s,
        )

    def output(self, program: str, *arguments: str, deadline_s: float = 600) -> str:
        """What a program prints that has to succeed."""
        done = self.run(program, *arguments, deadline_s=deadline_s)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def install_by_the_page(folder: Path, packages: Path) -> Installed:
    """Make an environment with the commands of docs/installation.md, in which `dist/` is ``packages``."""
    (page,) = (page for page in PAGES if page.name == "docs/installation.md")
    (block,) = (block.text for block in page.blocks if "python3 -m venv" in block.text)
    environment, place = folder / "environment", folder / "elsewhere"
    place.mkdir(parents=True)
    script = block.replace("/opt/event-trigger", str(environment)).replace("dist/", f"{packages}/")
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=place,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return Installed(environment, place)


def install(folder: Path, packages: Path, *, python: str = sys.executable) -> Installed:
    """Make the environment of docs/installation.md, quicker: the lock, then the wheels of a `dist/`."""
    environment, place = folder / "environment", folder / "elsewhere"
    place.mkdir(parents=True)
    commands = [
        [UV, "venv", "--quiet", "--python", python, str(environment)],
        [UV, "pip", "install", "--quiet", "--python", str(environment), "--no-deps", "--require-hashes",
         "-r", str(packages / "requirements.txt")],
        [UV, "pip", "install", "--quiet", "--python", str(environment), "--no-deps",
         *map(str, sorted(packages.glob("*.whl")))],
    ]  # fmt: skip
    for command in commands:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return Installed(environment, place)
