"""The last hour of a job in bins of half a minute, from snapshots: rates, latency, lag, checkpoints, what changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.job.snapshot import JobSnapshot
from pipeline.job.status import quantile
from transforms.adapters.telemetry.metrics import BOUNDS_MS

BIN_MS: Final = 30_000
BINS: Final = 120
MAX_CHANGES: Final = 200
_SILENT_S: Final = 60.0

_LATENCY: Final = tuple(f"latency_ms_le_{bound}" for bound in (*BOUNDS_MS, "inf"))
_COUNTERS: Final = ("events_handled", "actions", "dead_letters", *_LATENCY)
# What a gauge means that becomes 1, and then 0.
_BREAKER: Final = ("is failing: its breaker opened", "answers again: its breaker closed")
_SWITCH: Final = ("switched off", "switched on")


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened to the job at a time [ms since the epoch]."""

    at_ms: int
    text: str
    is_bad: bool = False


@dataclass(slots=True)
class Bin:
    """What was seen within half a minute; ``counts`` are increases within ``seconds``."""

    number: int
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    lag: int | None = None
    checkpoint_ms: int | None = None

    def rate(self, counter: str) -> float | None:
        """A counter's increase a second; None if there was nothing to compare."""
        return self.counts.get(counter, 0) / self.seconds if self.seconds > 0 else None

    def latency_ms(self, share: float) -> float | None:
        """A quantile of the latency; None without an action."""
        return quantile([self.counts.get(name, 0) for name in _LATENCY], share)


@dataclass(frozen=True, slots=True)
class Hour:
    """``BINS`` bins, the newest last, None where nothing was seen; ``changes`` the newest last."""

    from_ms: int
    to_ms: int
    bins: Sequence[Bin | None]
    changes: Sequence[Change]

    def position(self, at_ms: int) -> float:
        """Where a time is between the hour's begin (0) and its end (1)."""
        return min(max((at_ms - self.from_ms) / (self.to_ms - self.from_ms), 0.0), 1.0)


class Recorder:
    """Takes snapshots, the oldest first, and keeps an hour of them."""

    def __init__(self) -> None:
        self._bins: deque[Bin] = deque(maxlen=BINS)
        self._changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self._last: JobSnapshot | None = None
        self._counted_at_s: float | None = None  # when the counters were last seen
        self._counters: dict[str, int] = {}
        self._may_begin_anew: set[str] = set()
        self._smaller_since_s: dict[str, float] = {}
        self._switches: dict[str, bool] = {}
        self._rule_set: int | None = None
        self._is_missing = False

    def add(self, at_ms: int, now: JobSnapshot) -> None:
        """Take a snapshot that was made at a time."""
        if self._is_missing:
            self._is_missing = False
            self._note(at_ms, "Flink answers again")
        before, self._last = self._last, now
        same = self._same_job(at_ms, before, now)
        self._checkpoint(at_ms, before if same else None, now)
        if not now.metrics:
            return
        self._gauges(at_ms, now)
        self._count(at_ms, now)
        if now.job["state"] == "RUNNING" and now.lag is not None:
            current = self._bin(at_ms)
            current.lag = now.lag if current.lag is None else max(current.lag, now.lag)

    def miss(self, at_ms: int, why: str) -> None:
        """Note that there was no snapshot; the hour shows it once."""
        if not self._is_missing and self._last is not None:
            self._is_missing = True
            self._note(at_ms, f"nothing seen: {why}", is_bad=True)

    def hour(self, now_ms: int) -> Hour:
        """The hour that ends with the bin of a time."""
        last = now_ms // BIN_MS
        found = {seen.number: seen for seen in self._bins}
        from_ms, to_ms = (last + 1 - BINS) * BIN_MS, (last + 1) * BIN_MS
        bins = [found.get(number) for number in range(last + 1 - BINS, last + 1)]
        return Hour(from_ms, to_ms, bins, [change for change in self._changes if change.at_ms >= from_ms])

    def _bin(self, at_ms: int) -> Bin:
        number = at_ms // BIN_MS
        if not self._bins or self._bins[-1].number < number:
            self._bins.append(Bin(number))
        return self._bins[-1]  # also for a clock that was set back

    def _note(self, at_ms: int, text: str, is_bad: bool = False) -> None:
        self._changes.append(Change(at_ms, text, is_bad))

    def _same_job(self, at_ms: int, before: JobSnapshot | None, now: JobSnapshot) -> bool:
        """Note what changed of the job itself; returns whether it is the job of the snapshot before."""
        if before is None:
            return False
        if before.job["jid"] != now.job["jid"]:
            self._note(at_ms, f"job {now.job['jid'][:8]} took over from {before.job['jid'][:8]}")
            self._counters, self._counted_at_s, self._switches = {}, None, {}
            return False
        restarts = (before.restarts or 0, now.restarts or 0)
        if restarts[1] > restarts[0]:
            self._note(at_ms, f"restarted (restart {restarts[1]})", is_bad=True)
        if before.restarts != now.restarts:  # a new JobManager begins to count at 0
            self._may_begin_anew = set(_COUNTERS)
        if before.job["state"] != now.job["state"]:
            self._note(at_ms, f"job is {now.job['state']}", is_bad=now.job["state"] != "RUNNING")
        return True

    def _checkpoint(self, at_ms: int, before: JobSnapshot | None, now: JobSnapshot) -> None:
        if before is None:
            return
        failed = now.checkpoints["counts"]["failed"] - before.checkpoints["counts"]["failed"]
        if failed > 0:
            self._note(at_ms, f"{failed} checkpoint{'s' if failed > 1 else ''} failed", is_bad=True)
        latest = now.checkpoints["latest"]["completed"]
        if latest is not None and latest != before.checkpoints["latest"]["completed"]:
            current = self._bin(at_ms)
            current.checkpoint_ms = max(current.checkpoint_ms or 0, latest["end_to_end_duration"])

    def _gauges(self, at_ms: int, now: JobSnapshot) -> None:
        number = now.highest("rule_set")
        if number is not None:
            if self._rule_set is not None and number != self._rule_set:
                self._note(at_ms, f"rule set {number} is live")
            self._rule_set = number
        for name, subject, meanings in _switches(now):
            is_on = bool(now.highest(name))
            if self._switches.get(name, is_on) != is_on:
                self._note(at_ms, f"{subject} {meanings[0] if is_on else meanings[1]}", is_on)
            self._switches[name] = is_on

    def _count(self, at_ms: int, now: JobSnapshot) -> None:
        """Add the increases since the counters were last seen to the bin of now."""
        increases = {name: self._increase(name, now.total(name), now.at_s) for name in _COUNTERS}
        if self._counted_at_s is not None:
            current = self._bin(at_ms)
            current.seconds += now.at_s - self._counted_at_s
            for name, increase in increases.items():
                current.counts[name] = current.counts.get(name, 0) + increase
        self._counted_at_s = now.at_s

    def _increase(self, name: str, total: int, at_s: float) -> int:
        """A counter begins at 0 again after a restart; any other smaller sum lacks a subtask that does not answer.

        A sum that stays smaller is that of a restart which was not seen: counting goes on from it.
        """
        seen = self._counters.setdefault(name, total)
        if total < seen and name not in self._may_begin_anew:
            if at_s - self._smaller_since_s.setdefault(name, at_s) > _SILENT_S:
                self._counters[name] = total
            return 0
        self._smaller_since_s.pop(name, None)
        self._counters[name] = total
        if total >= seen:
            return total - seen
        self._may_begin_anew.discard(name)
        return total


def _switches(now: JobSnapshot) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """Name, subject and meanings of each gauge that is 0 or 1."""
    for name in now.metrics:
        destination, _, gauge = name.removeprefix("destination.").rpartition(".")
        if name == "user_api_breaker_open":
            yield name, "user API", _BREAKER
        elif name.startswith("destination.") and gauge in ("breaker_open", "disabled"):
            yield name, f"destination {destination}", _BREAKER if gauge == "breaker_open" else _SWITCH


def values(hour: Hour, of: Callable[[Bin], float | None]) -> list[float | None]:
    """A value of each bin; None where nothing was seen."""
    return [None if seen is None else of(seen) for seen in hour.bins]
