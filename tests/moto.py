"""Installs moto, which stands for AWS in tests, beside our own packages: it would change their versions."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from runners.flink import artifacts

REQUIREMENTS = Path(__file__).parent.parent / "requirements" / "infra.txt"


def packages() -> Path:
    """A folder for a child's PYTHONPATH, with moto and the AWS command line; installed once into the cache."""
    folder = artifacts.cache_dir() / f"moto-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
    if not folder.is_dir():
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        uv = str(Path(sys.executable).parent / "uv")
        target = ["--target", str(part), "--require-hashes", "-r", str(REQUIREMENTS)]
        subprocess.run([uv, "pip", "install", "--quiet", *target], check=True, stdin=subprocess.DEVNULL)
        part.rename(folder)
    return folder
