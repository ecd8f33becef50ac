"""A point on the real Kafka and Flink, by the means of the comparison with peers."""

from __future__ import annotations

import time
from typing import Any

from tests.benchmarks.growth.dimensions import OnStack
from tests.benchmarks.peers.analysis import fidelity, latency
from tests.benchmarks.peers.measure import (
    Backlogs,
    Plan,
    at_rate,
    await_actions,
    drain,
    expected_actions,
    run_load,
)
from tests.benchmarks.peers.stack import Stack, check_actions, read_log
from tests.benchmarks.peers.systems import ours

# The beginning of a rate is not steady yet.
_SKIP_MS = 5000


def measure(stack: Stack, backlogs: dict[OnStack, Backlogs], point: OnStack) -> dict[str, Any]:
    """CPU an event by group of processes; latency at a steady rate, or the rate of a backlog that is worked off."""
    plan = _plan(point)
    if point.rate:
        return _steady(stack, point, plan)
    key = OnStack(users=point.users, events=point.events)
    made = backlogs.setdefault(key, Backlogs(stack, plan))
    with ours(point.slots, *point.options) as start:
        return {name: value for name, value in drain(stack, start, plan, made.of("zipf")).items() if name != "samples"}


def _steady(stack: Stack, point: OnStack, plan: Plan) -> dict[str, Any]:
    workload = plan.workload("zipf")
    name = stack.create(f"growth-{time.monotonic_ns():x}")
    with ours(point.slots, *point.options) as start, stack.wiring(name, point.checkpoint_s, point.users) as wiring:
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
        settle_s=min(10.0, point.seconds / 4),
        window_s=min(20.0, point.seconds / 2),
        rates=(point.rate,),
        rate_s=point.seconds,
        recovery_rate=0,
        recovery_s=0.0,
    )
