"""A point on the real Kafka and Flink, by the means of the comparison with peers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.growth.dimensions import OnStack
from tests.benchmarks.peers.analysis import fidelity
from tests.benchmarks.peers.measure import Backlogs, Plan, Start, at_rate, drain, latency_at, warm_up, while_running
from tests.benchmarks.peers.stack import Stack, Topic
from tests.benchmarks.peers.systems import Running, Wiring, our_jobs
from tests.flink_cluster import FlinkCluster


@contextmanager
def warm_stack(most_slots: int, point: OnStack) -> Iterator[WarmStack]:
    """The broker and one cluster for all points: Java compiles itself once, in a job like that of ``point``."""
    with Stack() as stack, FlinkCluster(task_managers=1, slots=most_slots, long_lived=True) as flink:
        made = WarmStack(stack, flink)
        made.warm_up(point)
        yield made


class WarmStack:
    """What runs for all points."""

    def __init__(self, stack: Stack, flink: FlinkCluster) -> None:
        self._stack = stack
        self._flink = flink
        self._backlogs: dict[OnStack, Backlogs] = {}

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
        def during(running: Running, wiring: Wiring, _: Topic, actions: Topic) -> dict[str, Any]:
            return at_rate(self._stack, running, wiring, actions, plan.workload("load"), 1, point.rate, plan)

        told, log = while_running(self._stack, start, plan, during)
        return told | latency_at(told, log) | fidelity(log)


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
