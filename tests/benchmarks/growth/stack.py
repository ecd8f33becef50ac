"""A point on the real Kafka and Flink, by the means of the comparison with peers."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from tests.benchmarks.growth.dimensions import OnStack
from tests.benchmarks.peers.analysis import fidelity, latency
from tests.benchmarks.peers.measure import (
    Backlogs,
    Plan,
    Start,
    at_rate,
    await_actions,
    drain,
    expected_actions,
    run_load,
    warm_up,
)
from tests.benchmarks.peers.stack import Stack, check_actions, read_log
from tests.benchmarks.peers.systems import cluster, our_jobs

# The beginning of a rate is not steady yet.
_SKIP_MS = 5000


class WarmStack:
    """The broker and one cluster for all points: Java compiles itself once, in jobs that nobody looks at."""

    def __init__(self, most_slots: int) -> None:
        self._most_slots = most_slots
        self._open = ExitStack()
        self._backlogs: dict[OnStack, Backlogs] = {}

    def __enter__(self) -> WarmStack:
        with ExitStack() as stack:
            self._stack = stack.enter_context(Stack())
            self._flink = stack.enter_context(cluster(self._most_slots))
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def warm_up(self, point: OnStack) -> None:
        """Run what runs at a point, as fast as it goes."""
        plan = _plan(point)
        with our_jobs(self._flink, 1) as start:
            warm_up(self._stack, start, plan, self._backlogs_of(point, plan).of("zipf"))

    def measure(self, point: OnStack) -> dict[str, Any]:
        """CPU an event by group of processes; latency at a steady rate, or the rate of a backlog that is worked off."""
        plan = _plan(point)
        with our_jobs(self._flink, point.slots, *point.options) as start:
            if point.rate:
                return self._steady(start, point, plan)
            figures = drain(self._stack, start, plan, self._backlogs_of(point, plan).of("zipf"))
            return {name: value for name, value in figures.items() if name != "samples"}

    def _backlogs_of(self, point: OnStack, plan: Plan) -> Backlogs:
        key = OnStack(users=point.users, events=point.events)
        return self._backlogs.setdefault(key, Backlogs(self._stack, plan))

    def _steady(self, start: Start, point: OnStack, plan: Plan) -> dict[str, Any]:
        stack, workload = self._stack, plan.workload("zipf")
        name = stack.create(f"growth-{time.monotonic_ns():x}")
        with stack.wiring(name, point.checkpoint_s, point.users) as wiring:
            events, actions = stack.topic(name), stack.topic(wiring.actions)
            run_load(stack, name, workload, 0, first=True, count=0)
            with start(wiring) as running:
                await_actions(actions, expected_actions(workload.first_events()), plan)
                told = at_rate(stack, running, wiring, actions, workload, 1, point.rate, plan)
                told |= running.checkpoints()
            log = read_log(events, actions)
            check_actions(actions)
            events.close()
            actions.close()
        stack.delete(name)
        return told | latency(log, told["started_ms"] + _SKIP_MS, told["ended_ms"]) | fidelity(log)


def _plan(point: OnStack) -> Plan:
    return Plan(
        users=point.users,
        events=point.events,
        miss_events=0,
        misses=0.0,
        parallelism=point.slots,
        checkpoint_s=point.checkpoint_s,
        warm_s=45.0,
        settle_s=min(10.0, point.seconds / 4),
        window_s=min(20.0, point.seconds / 2),
        rates=(point.rate,),
        rate_s=point.seconds,
        recovery_rate=0,
        recovery_s=0.0,
    )
