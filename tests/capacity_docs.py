"""The generated parts of docs/capacity.md and of the costs in docs/infrastructure.md (`make readme`)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from infra.scaling import Group, Minute, Policy, day, machine_hours, simulate
from pipeline.cli.capacity.costs import (
    HOURS,
    NODE_GIB,
    PRICES_FILE,
    Cost,
    Prices,
    between_zones_gb,
    monthly,
    read_prices,
    together,
)
from pipeline.cli.capacity.model import SLOTS, TIERS, Figures, Load, Plan, Tier, read_figures
from pipeline.cli.capacity.report import plan_text

# The tiers of the architecture, in events/s. It names no users except 10 million at its largest.
LOADS: Final = {
    "small": Load(10_000, 100_000),
    "medium": Load(100_000, 1_000_000),
    "large": Load(1_000_000, 10_000_000),
}
# A load whose users need more machines than its events.
MANY_USERS: Final = Load(10_000, 10_000_000)
_DEFAULT_WORKER_MIB: Final = 1536  # python_worker_memory_mib
_COSTS: Final = re.compile(r"(<!-- (costs|prices|day): .*?-->\n).*?(<!-- /\2 -->)", re.DOTALL)
_PART: Final = re.compile(r"(<!-- (figures|tiers|by user|printed): .*?-->\n).*?(<!-- /\2 -->)", re.DOTALL)


def expected(text: str) -> str:
    """docs/capacity.md as it should be."""
    figures, document = read_figures()
    parts = {
        "figures": figures_table(document),
        "tiers": tiers_table(figures),
        "by user": by_user_table(figures),
        "printed": f"```\n{printed(figures)}```",
    }
    return _PART.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n\n{found[3]}", text)


def figures_table(document: Mapping[str, Mapping[str, Any]]) -> str:
    """Each figure: what it is, and where it comes from."""
    lines = ["| figure | | unit | what | measured |", "|---|---:|---|---|---|"]
    for name, figure in document.items():
        command = f"`{figure['command']}`" if figure["command"].startswith("make ") else figure["command"]
        source = f"{figure['date']}, {figure['commit']}: {command}"
        lines.append(f"| `{name}` | {figure['value']:,} | {figure['unit']} | {figure['what']} | {source} |")
    return "\n".join(lines)


def tiers_table(figures: Figures) -> str:
    """What each tier's load needs on its machines, beside what the tier has."""
    plans = {tier.name: Plan(LOADS[tier.name], figures, tier) for tier in TIERS}
    rows = {
        "events/s": lambda plan: f"{plan.load.events_per_second:,.0f}",
        "users in the state": lambda plan: f"{plan.load.users:,.0f}",
        "TaskManager": lambda plan: plan.tier.instance_type,
        **{
            f"TaskManagers for {name}": lambda plan, name=name: f"{plan.needed[name]:,}"
            for name in plans["small"].needed
        },
        "**TaskManagers needed**": lambda plan: f"**{plan.task_managers:,}**, for {plan.limit}",
        "if a vCPU does half as much": lambda plan: f"{halved(plan).task_managers:,}, for {halved(plan).limit}",
        "of the tier": lambda plan: _range(plan.tier, 1),
        "slots needed": lambda plan: f"{plan.slots:,}",
        "of the tier (parallelism)": lambda plan: _range(plan.tier, SLOTS),
        "a worker is busy": lambda plan: f"{plan.worker_share:.0%}",
        "a machine is busy": lambda plan: f"{plan.machine_share:.0%}",
        "`python_worker_memory_mib` needed": lambda plan: (
            f"{plan.worker_memory_mib:,} of {plan.tier.worker_memory_mib:,}"
        ),
        "… on the tier's fewest TaskManagers": lambda plan: _fewest(plan, plan.tier.min_count),
        "… on its most": lambda plan: _fewest(plan, plan.tier.max_count),
        "network in / out, Gbit/s": lambda plan: f"{plan.network_in_gbps:.2f} / {plan.network_out_gbps:.2f}",
        "a checkpoint uploads": lambda plan: (
            f"{plan.checkpoint_least_bytes / 1e9:.2f} to {plan.checkpoint_bytes / 1e9:.2f} GB"
        ),
        "checkpoints planned by the tier": lambda plan: f"{plan.tier.checkpoint_storage_gib:,} GiB",
        "Kafka partitions needed": lambda plan: f"{plan.kafka_partitions:,}",
        "of the tier, partitions": lambda plan: f"{plan.tier.kafka_partitions:,}",
        "brokers' cores, leaders only": lambda plan: f"{plan.broker_cores:.1f}",
        "`user_shards` needed": lambda plan: f"{plan.user_shards:,}",
        "of the tier, shards": lambda plan: f"{plan.tier.user_shards:,}",
        "times the highest rate seen": lambda plan: f"{plan.load.events_per_second / figures.highest_rate_seen:,.1f}",
    }
    lines = [f"| | {' | '.join(plans)} |", f"|---|{'---:|' * len(plans)}"]
    lines += [f"| {name} | {' | '.join(cell(plan) for plan in plans.values())} |" for name, cell in rows.items()]
    return "\n".join(lines)


def halved(plan: Plan) -> Plan:
    """The same load where everything takes twice the CPU."""
    worker_us, flink_us = plan.figures.worker_us_per_event, plan.figures.task_manager_us_per_event
    figures = replace(plan.figures, worker_us_per_event=2 * worker_us, task_manager_us_per_event=2 * flink_us)
    return replace(plan, figures=figures)


def _range(tier: Tier, of_each: int) -> str:
    least, most = tier.min_count * of_each, tier.max_count * of_each
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _fewest(plan: Plan, count: int) -> str:
    there = Plan(plan.load, plan.figures, plan.tier, parallelism=count * SLOTS)
    enough = (
        "" if there.worker_memory_mib <= _DEFAULT_WORKER_MIB else f", more than the default {_DEFAULT_WORKER_MIB:,}"
    )
    return f"{there.worker_memory_mib:,}{enough}"


def by_user_table(figures: Figures) -> str:
    """TaskManagers of the large tier's kind, keyed by shard and by user."""
    tier = TIERS[-1]
    lines = ["| events/s | users in the state | by shard, limited by | by user, limited by |", "|---:|---:|---|---|"]
    for load in (MANY_USERS, LOADS["medium"], Load(100_000, 100_000_000), LOADS["large"]):
        shards, users = Plan(load, figures, tier), Plan(load, figures, tier, by_user=True)
        cells = [f"{plan.task_managers:,}, {plan.limit}" for plan in (shards, users)]
        lines.append(f"| {load.events_per_second:,.0f} | {load.users:,.0f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def printed(figures: Figures) -> str:
    """What the command prints of the large tier's load."""
    return plan_text(Plan(LOADS["large"], figures, TIERS[-1]), read_prices())


# The columns of the costs: each tier with its fewest and most TaskManagers.
_COSTED: Final = (("small", 1), ("medium", 4), ("medium", 8), ("large", 20), ("large", 50))


def costs_table(figures: Figures, prices: Prices) -> str:
    """What each tier costs a month at its load, as `capacity` calculates it."""
    tiers = {tier.name: tier for tier in TIERS}
    plans = [Plan(LOADS[name], figures, tiers[name], parallelism=count * SLOTS) for name, count in _COSTED]
    columns = [f"{name}, {count}" if name != "small" else name for name, count in _COSTED]
    costs = [monthly(plan, prices) for plan in plans]
    single_zone = [
        f"{between_zones_gb(plan, single_zone=True) * prices.values['between_zones_gb']:,.0f}" for plan in plans
    ]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name in costs[0]:
        lines.append(f"| {name} | {' | '.join(_usd(cost[name]) for cost in costs)} |")
    lines.append(f"| … with `single_zone` | {' | '.join(single_zone)} |")
    lines.append(f"| **together** | {' | '.join(_usd(together(cost)) for cost in costs)} |")
    return "\n".join(lines)


def prices_table(prices: Prices) -> str:
    """The prices that the costs are made of."""
    document = json.loads(PRICES_FILE.read_text("utf-8"))
    lines = [f"| price of {prices.region}, {prices.date} | | unit | what |", "|---|---:|---|---|"]
    lines += [
        f"| `{name}` | {entry['value']} | {entry['unit']} | {entry['what']} |"
        for name, entry in document.items()
        if name != "source"
    ]
    return "\n".join(lines)


# A day of the large tier with TaskManagers that follow the load, and with fixed numbers of them.
ELASTIC: Final = Policy(least=4, most=TIERS[-1].max_count)


def simulated_day(policy: Policy, figures: Figures) -> tuple[list[Minute], int]:
    """The second of two equal days, so that it begins as it ends, and its restarts."""
    load = day(LOADS["large"].events_per_second)
    group = Group(policy, figures, TIERS[-1], policy.least)
    simulate(group, load)
    before = group.restarts
    return [group.step(len(load) + minute, events) for minute, events in enumerate(load)], group.restarts - before


def day_cost(minutes: list[Minute], prices: Prices) -> float:
    """What the TaskManagers of such days cost a month, instances and volumes."""
    of_one = prices.values[TIERS[-1].instance_type] * HOURS + NODE_GIB * prices.values["gp3_gib"]
    return machine_hours(minutes) / 24 * of_one


def day_table(figures: Figures, prices: Prices) -> str:
    """What a day takes with fixed numbers and with a number that follows the load."""
    load, tier = LOADS["large"], TIERS[-1]
    needed = Plan(load, figures, tier).task_managers
    policies = {
        f"{needed}, as `capacity` says": Policy(needed, needed),
        f"{tier.min_count}, the tier's fewest": Policy(tier.min_count, tier.min_count),
        f"`elastic`, from {ELASTIC.least} to {ELASTIC.most}": ELASTIC,
    }
    rows: dict[str, list[str]] = {
        name: []
        for name in (
            "TaskManagers",
            "hours of TaskManagers",
            "USD a month",
            "restarts for another number",
            "longest lag",
            "`python_worker_memory_mib` needed",
        )
    }
    for policy in policies.values():
        minutes, restarts = simulated_day(policy, figures)
        numbers = sorted({minute.running for minute in minutes})
        memory = max(_memory_mib(minute, figures) for minute in minutes)
        cells = [
            f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}",
            f"{machine_hours(minutes):,.0f}",
            f"{day_cost(minutes, prices):,.0f}",
            f"{restarts}",
            f"{max(minute.lag_s for minute in minutes):,.0f} s",
            f"{memory:,}",
        ]
        for row, cell in zip(rows.values(), cells, strict=True):
            row.append(cell)
    lines = [f"| | {' | '.join(policies)} |", f"|---|{'---:|' * len(policies)}"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


def _memory_mib(minute: Minute, figures: Figures) -> int:
    """What a worker takes: users come and go with their events."""
    peak = LOADS["large"]
    users = peak.users * minute.events_per_second / peak.events_per_second
    load = Load(minute.events_per_second, users)
    return Plan(load, figures, TIERS[-1], parallelism=minute.running * SLOTS).worker_memory_mib


def expected_costs(text: str) -> str:
    """docs/infrastructure.md as it should be."""
    figures, _ = read_figures()
    prices = read_prices()
    parts = {
        "costs": costs_table(figures, prices),
        "prices": prices_table(prices),
        "day": day_table(figures, prices),
    }
    return _COSTS.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n\n{found[3]}", text)


def _usd(cost: Cost) -> str:
    least, most = f"{cost.least:,.0f}", f"{cost.most:,.0f}"
    return least if least == most else f"{least} to {most}"
