"""What is measured of a row: how fast a backlog goes, and what a steady load sees, a ``kill -9`` included."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from tests.benchmarks.peers import load
from tests.benchmarks.peers.analysis import Log, fidelity, latency, recovery
from tests.benchmarks.peers.sampling import Limits, Sample, Sampler, peak_rss, rates, steady
from tests.benchmarks.peers.stack import Stack, Topic, check_actions, check_no_letters, read_log
from tests.benchmarks.peers.systems import Running, Wiring
from tests.benchmarks.peers.workload import Keys, Workload, country

Start = Callable[[Wiring], AbstractContextManager[Running]]
Figures = dict[str, Any]

_FIRST_ACTION_S: Final = 180.0
# Nothing new for so long: what was sent has been handled.
_QUIET_S: Final = 3.0
_QUIET_DEADLINE_S: Final = 60.0
# The beginning of a rate is the end of the one before it.
_SKIP_MS: Final = 5000
_KILL_AFTER_COMMIT_S: Final = 10.0
# A rate this close to the highest is a matter of luck on a shared machine.
_SUSTAINED: Final = 0.8


@dataclass(frozen=True)
class Plan:
    """Sizes of a run. ``events`` are a backlog's, ``recovery_s`` is how long the load goes on after a kill."""

    users: int
    events: int
    miss_events: int
    misses: float
    parallelism: int
    checkpoint_s: float
    warm_s: float
    settle_s: float
    window_s: float
    rates: tuple[int, ...]
    rate_s: float
    recovery_rate: int
    recovery_s: float

    def workload(self, part: str) -> Workload:
        """The events of a part."""
        keys: Keys = "uniform" if part == "uniform" else "zipf"
        return Workload(keys, self.users, self.misses if part == "misses" else 0.0)

    def backlog(self, part: str) -> int:
        """Events of a backlog after everybody's first."""
        return self.miss_events if part == "misses" else self.events


@dataclass(frozen=True)
class Backlog:
    """A full topic and how many actions it must lead to."""

    topic: str
    events: int
    first_actions: int
    all_actions: int


class Backlogs:
    """The full topics, each made when it is first needed and read by every row."""

    def __init__(self, stack: Stack, plan: Plan) -> None:
        self._stack, self._plan = stack, plan
        self._made: dict[str, Backlog] = {}

    def of(self, part: str) -> Backlog:
        """The backlog of a part."""
        if part not in self._made:
            self._made[part] = self._fill(part)
        return self._made[part]

    def _fill(self, part: str) -> Backlog:
        workload, count = self._plan.workload(part), self._plan.backlog(part)
        topic = self._stack.create(f"backlog-{part}")
        run_load(self._stack, topic, workload, 0, first=True, count=count)
        first = expected_actions(workload.first_events())
        return Backlog(topic, count, first, first + expected_actions(islice(workload.events(0), count)))


def expected_actions(events: Iterator[tuple[bytes, bool]]) -> int:
    """How many of the events fire."""
    return sum(1 for user, triggerable in events if triggerable and country(user.decode()) == "US")


def warm_up(stack: Stack, start: Start, plan: Plan, backlog: Backlog) -> None:
    """Let Java compile what the row runs, which costs it more than its work for about a minute."""
    with stack.wiring(backlog.topic, plan.checkpoint_s, plan.users) as wiring:
        actions = stack.topic(wiring.actions)
        with start(wiring):
            await_actions(actions, backlog.first_actions, plan)
            give_up = time.monotonic() + plan.warm_s
            while time.monotonic() < give_up and sum(actions.ends()) < backlog.all_actions:
                time.sleep(0.5)
        actions.close()


def drain(stack: Stack, start: Start, plan: Plan, backlog: Backlog) -> Figures:
    """Work off a backlog: events/s, CPU an event and memory while it goes steadily."""
    with stack.wiring(backlog.topic, plan.checkpoint_s, plan.users) as wiring:
        actions = stack.topic(wiring.actions)
        limits = Limits(backlog.first_actions, backlog.all_actions, plan.settle_s, plan.window_s)
        submitted = time.monotonic()
        with start(wiring) as running, _sampling(stack, running, actions) as sampler:
            stretch = _await_stretch(sampler, limits, plan)
            checkpoints = running.checkpoints()
        per_action = backlog.events / (backlog.all_actions - backlog.first_actions)
        check_actions(actions)
        actions.close()
        dead_letters = stack.topic(wiring.dead_letters)
        check_no_letters(dead_letters)
        dead_letters.close()
    first = next(sample for sample in sampler.samples if sample.actions)
    return {
        **rates(*stretch, per_action),
        **peak_rss(sampler.samples),
        "first action after s": first.at_s - submitted,
        **checkpoints,
        "samples": [[sample.at_s - submitted, sample.actions * per_action] for sample in sampler.samples],
    }


def _await_stretch(sampler: Sampler, limits: Limits, plan: Plan) -> tuple[Sample, Sample]:
    # A miss that blocks the row takes the stub's delay, a CPU-bound one less; twice that is patience enough.
    patience_s = _FIRST_ACTION_S + plan.users * 0.1 + plan.settle_s + plan.window_s
    give_up = time.monotonic() + patience_s
    while (stretch := steady(list(sampler.samples), limits)) is None:
        seen = sampler.samples[-1].actions if sampler.samples else 0
        sampler.check()
        if time.monotonic() > give_up:
            raise TimeoutError(f"{seen} of {limits.all_actions} actions after {patience_s:.0f} s")
        time.sleep(0.2)
    return stretch


@contextmanager
def _sampling(stack: Stack, running: Running, actions: Topic) -> Iterator[Sampler]:
    def groups() -> dict[str, list[int]]:
        return {**running.groups(), "broker": [stack.kafka.pid], "user API": [stack.api.pid]}

    with Sampler(groups, lambda: sum(actions.ends())) as sampler:
        yield sampler


def under_load(stack: Stack, start: Start, plan: Plan, highest: float | None, transactional: bool) -> Figures:
    """Steady rates one after the other, then a kill under a low one; latency, losses, duplicates."""
    workload = plan.workload("load")

    def during(running: Running, wiring: Wiring, events: Topic, actions: Topic) -> Figures:
        rates: dict[str, Figures] = {}
        for run, rate in enumerate(plan.rates, 1):
            if highest is not None and rate > _SUSTAINED * highest:
                rates[str(rate)] = {"skipped": f"its highest rate is {highest:.0f}/s"}
                continue
            rates[str(rate)] = at_rate(stack, running, wiring, actions, workload, run, rate, plan)
            if not rates[str(rate)]["kept up"]:
                break
        killed = _killed(stack, running, wiring, actions, workload, plan)
        if transactional:
            ends = events.ends()
            _await_commit(stack, wiring, lambda offsets: offsets == ends, 3 * plan.checkpoint_s + 60)
            _await_quiet(actions)
        return {"rates": rates, **killed}

    figures, log = while_running(stack, start, plan, during)
    for told in figures["rates"].values():
        if "skipped" not in told:
            told |= latency_at(told, log)
    return {**figures, **fidelity(log), **recovery(log, figures["killed_ms"])}


def while_running(
    stack: Stack, start: Start, plan: Plan, during: Callable[[Running, Wiring, Topic, Topic], Figures]
) -> tuple[Figures, Log]:
    """Start a job and give it everybody's first event, then do something with it and its topics of events and actions.

    Returns what that told, with figures of checkpoints, and what the topics held when the job had ended.
    """
    workload = plan.workload("load")
    name = stack.create(f"load-{time.monotonic_ns():x}")
    with stack.wiring(name, plan.checkpoint_s, plan.users) as wiring:
        events, actions = stack.topic(name), stack.topic(wiring.actions)
        run_load(stack, name, workload, 0, first=True, count=0)
        with start(wiring) as running:
            await_actions(actions, expected_actions(workload.first_events()), plan)
            figures = during(running, wiring, events, actions)
            figures |= running.checkpoints()
        log = read_log(events, actions)
        check_actions(actions)
        events.close()
        actions.close()
    stack.delete(name)
    return figures, log


def latency_at(told: Figures, log: Log) -> Figures:
    """Latency at a rate, of what ``at_rate`` told, once it is steady."""
    return latency(log, told["started_ms"] + _SKIP_MS, told["ended_ms"])


def at_rate(
    stack: Stack, running: Running, wiring: Wiring, actions: Topic, workload: Workload, run: int, rate: int, plan: Plan
) -> Figures:
    """One steady rate: what was sent and when, CPU an event, memory, and whether the row kept up."""
    with _sampling(stack, running, actions) as sampler:
        told = run_load(stack, wiring.events, workload, run, rate=rate, seconds=plan.rate_s)
        sampler.check()
    quiet_s = _await_quiet(actions)
    first, last = sampler.samples[0], sampler.samples[-1]
    cpu = {name: (last.cpu_s[name] - first.cpu_s[name]) / told["sent"] * 1e6 for name in last.cpu_s}
    return {
        **told,
        **{f"{name} µs/event": value for name, value in cpu.items()},
        **peak_rss(sampler.samples),
        "kept up": quiet_s is not None and quiet_s < _QUIET_DEADLINE_S / 3,
    }


def _killed(stack: Stack, running: Running, wiring: Wiring, actions: Topic, workload: Workload, plan: Plan) -> Figures:
    """Kill under load, ten seconds after a checkpoint; when that was."""
    patience_s = 3 * plan.checkpoint_s + 60
    process = _load(
        stack, wiring.events, workload, len(plan.rates) + 1,
        rate=plan.recovery_rate, seconds=patience_s + _KILL_AFTER_COMMIT_S + plan.recovery_s,
    )  # fmt: skip
    try:
        before = stack.committed(wiring.group, wiring.events)
        _await_commit(stack, wiring, lambda offsets: offsets != before, patience_s)
        time.sleep(_KILL_AFTER_COMMIT_S)
        killed_ms = time.time_ns() // 1_000_000
        running.kill()
        running.revive()
        revived_ms = time.time_ns() // 1_000_000
        time.sleep(max(plan.recovery_s - (revived_ms - killed_ms) / 1e3, 0))
    finally:
        process.terminate()
        load.result(process, 150)
    quiet_s = _await_quiet(actions)
    return {"killed_ms": killed_ms, "revived s": (revived_ms - killed_ms) / 1e3, "quiet": quiet_s is not None}


def _load(stack: Stack, topic: str, workload: Workload, run: int, **how: Any) -> subprocess.Popen[bytes]:
    command = load.command(stack.kafka.bootstrap_servers, topic, workload, run, **how)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def run_load(stack: Stack, topic: str, workload: Workload, run: int, **how: Any) -> Figures:
    """Send events from a process of its own, as ``load.command`` says; what it tells at the end."""
    return load.result(_load(stack, topic, workload, run, **how), 900)


def await_actions(actions: Topic, wanted: int, plan: Plan) -> None:
    """Wait until so many actions are written.

    Raises:
        TimeoutError: they were not in time.
    """
    give_up = time.monotonic() + _FIRST_ACTION_S + plan.users * 0.1
    while (seen := sum(actions.ends())) < wanted:
        if time.monotonic() > give_up:
            raise TimeoutError(f"{seen} of {wanted} first actions")
        time.sleep(0.2)


def _await_quiet(actions: Topic) -> float | None:
    """Seconds until no action came any more, less the wait that shows it; nothing if they never ceased."""
    started = changed = time.monotonic()
    seen = sum(actions.ends())
    while time.monotonic() - changed < _QUIET_S:
        if time.monotonic() - started > _QUIET_DEADLINE_S:
            return None
        time.sleep(0.2)
        now = sum(actions.ends())
        if now != seen:
            seen, changed = now, time.monotonic()
    return changed - started


def _await_commit(stack: Stack, wiring: Wiring, reached: Callable[[list[int]], bool], patience_s: float) -> None:
    """Wait until the group's committed offsets are as wanted: all rows commit them with their checkpoint."""
    give_up = time.monotonic() + patience_s
    while not reached(offsets := stack.committed(wiring.group, wiring.events)):
        if time.monotonic() > give_up:
            raise TimeoutError(f"the committed offsets are {offsets} after {patience_s:.0f} s")
        time.sleep(0.5)


def plan_figures(plan: Plan) -> Figures:
    """The plan as it is kept beside the figures."""
    return asdict(plan)
