"""CPU, memory and progress of a running row, read twice a second, and what a steady stretch of them amounts to."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

Groups = Mapping[str, Iterable[int]]

# Its share of a TaskManager's CPU: it compiles for minutes, and nothing more once a job has run for longer.
JIT: Final = "TaskManager's JIT compiler"

_EVERY_S: Final = 0.5
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_MB: Final = os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True)
class Sample:
    """At ``at_s``: actions written so far; CPU seconds used so far and resident MB, by group of processes."""

    at_s: float
    actions: int
    cpu_s: Mapping[str, float]
    rss_mb: Mapping[str, float]


def process_tree(roots: Iterable[int]) -> set[int]:
    """Ids of all processes below the roots, without them."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = _stat(int(entry))
            if stat:
                parents.setdefault(int(stat[1]), []).append(int(entry))
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        children = set(parents.get(waiting.pop(), ())) - found
        found |= children
        waiting += children
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that living processes have used."""
    stats = filter(None, map(_stat, pids))
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / _TICKS


def compiler_seconds(pids: Iterable[int]) -> float:
    """CPU time that the JIT compilers' threads of living JVMs have used, a part of ``cpu_seconds``."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/stat"):
            try:
                name, _, rest = task.read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            if " CompilerThre" in name:
                fields = rest.split()
                total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def rss_mb(pids: Iterable[int]) -> float:
    """Resident memory of processes."""
    total = 0.0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MB
        except OSError:
            continue
    return total


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Sampler:
    """Takes samples in a thread while the context is open."""

    def __init__(self, groups: Callable[[], Groups], actions: Callable[[], int]) -> None:
        self._groups, self._actions = groups, actions
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="sampler")
        self._problem: Exception | None = None
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what went wrong in the thread."""
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        try:
            while not self._ending.wait(_EVERY_S):
                self.samples.append(take_sample(self._groups(), self._actions()))
        except Exception as error:  # noqa: BLE001 - told to who waits
            self._problem = error


def take_sample(groups: Groups, actions: int) -> Sample:
    """A sample of now."""
    listed = {name: list(pids) for name, pids in groups.items()}
    cpu = {name: cpu_seconds(pids) for name, pids in listed.items()}
    if "TaskManager" in listed:
        cpu[JIT] = compiler_seconds(listed["TaskManager"])
    return Sample(time.monotonic(), actions, cpu, {name: rss_mb(pids) for name, pids in listed.items()})


@dataclass(frozen=True)
class Limits:
    """Where a steady stretch lies: it starts ``settle_s`` after the last first event was handled, or at a quarter of
    the actions if that comes first, and ends at 95 % of them or after ``window_s``."""

    first_actions: int
    all_actions: int
    settle_s: float
    window_s: float


def steady(samples: Sequence[Sample], limits: Limits) -> tuple[Sample, Sample] | None:
    """First and last sample of the steady stretch; nothing as long as it has not ended."""
    handled_at: float | None = None
    start: Sample | None = None
    for sample in samples:
        if sample.actions < limits.first_actions:
            continue
        handled_at = sample.at_s if handled_at is None else handled_at
        if start is None:
            quarter = limits.first_actions + 0.25 * (limits.all_actions - limits.first_actions)
            if sample.actions >= quarter or sample.at_s - handled_at >= limits.settle_s:
                start = sample
        elif sample.actions >= 0.95 * limits.all_actions or sample.at_s - start.at_s >= limits.window_s:
            return start, sample
    return None


def rates(start: Sample, end: Sample, events_per_action: float) -> dict[str, float]:
    """Events a second and CPU-µs an event, by group, between two samples."""
    events = (end.actions - start.actions) * events_per_action
    if events <= 0:
        raise ValueError("no action between the two samples: the row stands still")
    cpu = {name: (end.cpu_s[name] - start.cpu_s[name]) / events * 1e6 for name in end.cpu_s}
    return {
        "events/s": events / (end.at_s - start.at_s),
        "seconds": end.at_s - start.at_s,
        **{f"{name} µs/event": value for name, value in cpu.items()},
    }


def peak_rss(samples: Iterable[Sample]) -> dict[str, float]:
    """Most MB resident, by group."""
    found: dict[str, float] = {}
    for sample in samples:
        for name, value in sample.rss_mb.items():
            found[name] = max(found.get(name, 0.0), value)
    return {f"{name} RSS MB": value for name, value in found.items()}
