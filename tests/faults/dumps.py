"""Stacks of TaskManagers and workers whenever a task stays CANCELING, so that a slow cancellation explains itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runners.flink import artifacts
from runners.flink.errors import LocalStackError
from tests.faults.stack import Stack

CANCELING_S = 8.0
_EVERY_S = 1.0
_WORKER_S = 5.0


class SlowCancellations:
    """Says of which vertices tasks have been CANCELING for ``after_s`` without a pause. Names each only once a time.

    ``longest_s`` is the longest time that it has seen.
    """

    def __init__(self, after_s: float = CANCELING_S) -> None:
        self.longest_s = 0.0
        self._after_s = after_s
        self._since: dict[str, float] = {}
        self._named: set[str] = set()

    def update(self, job: Mapping[str, Any], now_s: float) -> list[str]:
        """Take the job's details as REST has them, at a time of the monotonic clock."""
        canceling = {vertex["name"] for vertex in job["vertices"] if vertex["tasks"].get("CANCELING", 0)}
        self._since = {name: self._since.get(name, now_s) for name in canceling}
        self.longest_s = max(self.longest_s, *(now_s - since_s for since_s in self._since.values()), 0.0)
        self._named &= canceling
        slow = [name for name in sorted(canceling - self._named) if now_s - self._since[name] >= self._after_s]
        self._named.update(slow)
        return slow


class DumpWatch:
    """A thread that writes a file of stacks into ``folder`` for each slow cancellation of a job.

    ``job`` returns the job's details; it is called once a second, and may fail while no JobManager leads.
    """

    def __init__(self, stack: Stack, folder: Path, name: str, job: Callable[[], Mapping[str, Any]]) -> None:
        self.files: list[Path] = []
        self._slow = SlowCancellations()
        self._stack, self._folder, self._name, self._job = stack, folder, name, job
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dumps", daemon=True)

    def __enter__(self) -> DumpWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def notes(self) -> dict[str, Any]:
        """What belongs into a result."""
        found: dict[str, Any] = {"longest cancellation in s": round(self._slow.longest_s)}
        if self.files:
            found["stacks of slow cancellations"] = ", ".join(path.name for path in self.files)
        return found

    def dump(self, why: str) -> Path:
        """Write the stacks now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._name}-{time.strftime('%Y%m%d-%H%M%S')}.txt"
        path.write_text(f"{why}\n\n{stacks(self._stack)}")
        return path

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            with contextlib.suppress(LocalStackError):
                if names := self._slow.update(self._job(), time.monotonic()):
                    self.files.append(self.dump(f"CANCELING for {CANCELING_S:g} s: {', '.join(names)}"))


def stacks(stack: Stack) -> str:
    """The stacks of all threads of all TaskManagers and workers, and the last lines of their logs."""
    found = []
    for pid in stack.flink.task_manager_pids:
        found.append(f"=== TaskManager {pid}\n{_of_jvm(pid)}")
    for pid in stack.workers():
        found.append(f"=== worker {pid}\n{_of_worker(stack.flink.log_dir, pid)}")
    for log in sorted(stack.flink.log_dir.glob("taskmanager-*.log")):
        lines = log.read_text(errors="replace").splitlines()[-300:]
        found.append(f"=== end of {log.name}\n" + "\n".join(lines))
    return "\n\n".join(found)


def _of_jvm(pid: int) -> str:
    command = [str(Path(artifacts.java()).with_name("jcmd")), str(pid), "Thread.print", "-l"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no stacks: {error}"
    return done.stdout + done.stderr


def _of_worker(logs: Path, pid: int) -> str:
    """Ask with SIGUSR1: the worker writes its stacks to its log."""
    log = next(iter(logs.glob(f"worker-*-{pid}.log")), None)
    if log is None:
        return "no log"
    before = log.stat().st_size
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
    give_up = time.monotonic() + _WORKER_S
    size = before
    while time.monotonic() < give_up:
        time.sleep(0.2)
        if (now := log.stat().st_size) == size > before:
            break
        size = now
    with log.open("rb") as lines:
        lines.seek(max(0, before - 4000))
        return lines.read().decode(errors="replace")
