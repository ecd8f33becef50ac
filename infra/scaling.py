"""The arithmetic of infra/terraform's scaling policy (modules/taskmanager/scaling.tf), minute by minute over a load.

Pure: a load goes in, and how many TaskManagers there were, how busy and how late, comes out. docs/infrastructure.md has
the result for a day, which tests/benchmarks/scaling.py draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.cli.capacity.model import CHECKPOINT_INTERVAL_S, SLOTS, Figures, Tier

_MINUTE_S: Final = 60
# While the job restarts on another number of TaskManagers nothing is handled (F31 of docs/reliability.md, its longest
# recovery), and what was handled since the last checkpoint is handled again.
RESTART_S: Final = 17
REPEATED_S: Final = CHECKPOINT_INTERVAL_S / 2
# From the alarm until a new TaskManager has registered: EC2 and the boot.
START_MINUTES: Final = 5
# CPU of a worker for its micro-batches, however few events are in them: an event took 4.1 times as long at 2,000 a
# second as in a backlog (docs/measurements/growth.md: 270 and 66 µs), so (4.1 - 1) x 2,000 x `worker_us_per_event`.
BATCHES_AT: Final = (4.1 - 1) * 2_000


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of scaling.tf and the bounds of the group. ``max_lag_s`` is ``scale_out_lag`` as a time."""

    least: int
    most: int
    out_percent: float = 85
    out_minutes: int = 5
    out_share: float = 0.34
    warmup_minutes: int = 10
    in_percent: float = 55
    in_minutes: int = 30
    in_share: float = 0.25
    cooldown_minutes: int = 30
    max_lag_s: float = 120


@dataclass(frozen=True, slots=True)
class Minute:
    """What was so in a minute: TaskManagers that run the job and that are paid for, workers' CPU, backlog as a time."""

    events_per_second: float
    running: int
    paid: int
    busy_percent: float
    lag_s: float


@dataclass
class Group:
    """The Auto Scaling group and the job on it."""

    policy: Policy
    figures: Figures
    tier: Tier
    running: int
    restarts: int = 0
    _backlog: float = 0.0
    _starting: list[tuple[int, int]] = field(default_factory=list)  # the minute when they have registered, how many
    _quiet_from: int = 0  # no scale-out before: instances start or warm up
    _in_from: int = 0  # no scale-in before: its cooldown
    _is_restarting: bool = False
    _past: list[Minute] = field(default_factory=list)

    @property
    def _worker_seconds(self) -> float:
        return self.figures.worker_us_per_event / 1e6

    def busy_percent(self, events_per_second: float) -> float:
        """CPU of a worker that handles its share of so many events a second."""
        batches = BATCHES_AT * self._worker_seconds
        return 100 * min(1.0, batches + events_per_second / (self.running * SLOTS) * self._worker_seconds)

    def capacity(self) -> float:
        """Events a second that the TaskManagers carry at most: by their workers, and by their machines."""
        machine_seconds = self._worker_seconds + self.figures.task_manager_us_per_event / 1e6
        return self.running * min(SLOTS / self._worker_seconds, self.tier.vcpus / machine_seconds)

    def step(self, now: int, events_per_second: float) -> Minute:
        """Handle a minute, then do what the alarms say."""
        arrived = [count for at, count in self._starting if at <= now]
        if arrived:
            self._starting = [(at, count) for at, count in self._starting if at > now]
            self._change(self.running + sum(arrived))
        seconds = float(_MINUTE_S)
        if self._is_restarting:
            self._is_restarting = False
            seconds -= RESTART_S
            self._backlog += events_per_second * REPEATED_S
        wanted = self._backlog + events_per_second * _MINUTE_S
        handled = min(wanted, self.capacity() * seconds)
        self._backlog = wanted - handled
        minute = Minute(
            events_per_second,
            self.running,
            self.running + sum(count for _, count in self._starting),
            self.busy_percent(handled / _MINUTE_S),
            self._backlog / events_per_second if events_per_second else 0.0,
        )
        self._past.append(minute)
        self._scale(now)
        return minute

    def _scale(self, now: int) -> None:
        policy, recent = self.policy, self._past[-self.policy.out_minutes :]
        is_short = len(recent) == policy.out_minutes and (
            all(each.busy_percent > policy.out_percent for each in recent)
            or all(each.lag_s > policy.max_lag_s and each.busy_percent > policy.in_percent for each in recent)
        )
        quiet = self._past[-policy.in_minutes :]
        is_idle = len(quiet) == policy.in_minutes and all(
            each.busy_percent < policy.in_percent and each.lag_s <= policy.max_lag_s for each in quiet
        )
        if is_short and now >= self._quiet_from:
            more = min(max(1, math.floor(self.running * policy.out_share)), policy.most - self.running)
            if more > 0:
                self._starting.append((now + 1 + START_MINUTES, more))
                self._quiet_from = now + START_MINUTES + policy.warmup_minutes
        elif is_idle and now >= max(self._quiet_from, self._in_from):
            less = min(max(1, math.floor(self.running * policy.in_share)), self.running - policy.least)
            if less > 0:
                self._change(self.running - less)
                self._in_from = now + policy.cooldown_minutes

    def _change(self, running: int) -> None:
        self.running = running
        self.restarts += 1
        self._is_restarting = True


def simulate(group: Group, load: Sequence[float]) -> list[Minute]:
    """The minutes of a load, in events a second for each minute."""
    return [group.step(now, events_per_second) for now, events_per_second in enumerate(load)]


def day(peak: float) -> list[float]:
    """A day of a shop's load in events a second, by the minute from midnight on.

    A quarter of the peak at 4, all of it at 20 o'clock, and at noon a campaign that brings half as much again within
    two minutes, for half an hour.
    """
    load = []
    for minute in range(24 * 60):
        hours = minute / 60
        # From 4 to 20 o'clock it rises for 16 hours, then falls for 8.
        since_low = (hours - 4) % 24
        phase = since_low / 16 if since_low <= 16 else 1 + (since_low - 16) / 8
        share = 0.25 + 0.75 * (1 - math.cos(math.pi * phase)) / 2
        campaign = min(1.0, max(0.0, (minute - 720) / 2)) if minute < 750 else 0.0
        load.append(peak * share * (1 + 0.5 * campaign))
    return load


def machine_hours(minutes: Sequence[Minute]) -> float:
    """Hours of TaskManagers that are paid for."""
    return sum(minute.paid for minute in minutes) / 60
