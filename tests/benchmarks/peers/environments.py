"""A virtual environment for each peer, with the versions and hashes of ``requirements/NAME.txt``, kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from runners.flink.artifacts import cache_dir

REQUIREMENTS: Final = Path(__file__).parent / "requirements"
_STAMP: Final = ".installed"


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment, which is made if it is not there; a line of progress on stderr.

    Raises:
        RuntimeError: it cannot be made; the message has uv's own.
    """
    lock = REQUIREMENTS / f"{name}.txt"
    folder = cache_dir() / f"bench-{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as waiting:
        fcntl.flock(waiting, fcntl.LOCK_EX)
        if not (folder / _STAMP).exists():
            _make(name, lock, folder, python)
    return python


def version_of(name: str, package: str) -> str:
    """The pinned version of a package."""
    for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.removeprefix(f"{package}==").split()[0]
    raise KeyError(f"{package} is not in requirements/{name}.txt")


def _make(name: str, lock: Path, folder: Path, python: Path) -> None:
    _say(f"{name}: setting up its environment in {folder} ...")
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    _uv("venv", "--quiet", "--python", sys.executable, str(folder))
    # The lock is complete, so nothing else is asked for: apache-flink would bring a second Flink of 230 MB.
    _uv("pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python", str(python), "-r", str(lock))
    (folder / _STAMP).touch()
    _say(f"{name}: ready after {time.monotonic() - started:.0f} s")


def _uv(*arguments: str) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise RuntimeError("uv: not found beside this Python nor on the PATH; run make setup")
    done = subprocess.run([uv, *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"uv {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
