"""A capacity plan as text and as a JSON document."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from pipeline.cli.capacity.brokers import brokers_for
from pipeline.cli.capacity.costs import Cost, Prices, between_zones_gb, cost_document, monthly, together
from pipeline.cli.capacity.model import CHECKPOINT_INTERVAL_S, SLOTS, TARGET_SHARE, Plan


def plan_text(plan: Plan, prices: Prices) -> str:
    """The plan as text: a line for each quantity, what it costs, then remarks."""
    tier, load, figures = plan.tier, plan.load, plan.figures
    machine = f"{tier.vcpus} vCPU, {tier.memory_mib // 1024} GiB, {SLOTS} slots each"
    needed = "  ".join(f"{name} {count:,}" for name, count in plan.needed.items())
    by_user = Plan(load, figures, tier, by_user=True)
    rows = [
        ("load", f"{load.events_per_second:,.0f} events/s  {load.users:,.0f} users in the state"),
        ("TaskManagers", f"{plan.task_managers:,} x {tier.instance_type} ({machine})  tier {tier.name}"),
        ("  needed for", needed),
        ("slots", f"{plan.slots:,}  each worker busy {plan.worker_share:.0%}, each machine {plan.machine_share:.0%}"),
        (
            "worker memory",
            f"{plan.worker_memory_mib:,} MiB  (python_worker_memory_mib; {tier.worker_memory_mib:,} fit)",
        ),
        ("user shards", f"{plan.user_shards:,}  (user_shards and max_parallelism)"),
        ("network", f"{plan.network_in_gbps:.2f} Gbit/s in, {plan.network_out_gbps:.2f} out, all machines together"),
        (
            "checkpoint",
            f"{_size(plan.checkpoint_least_bytes)} to {_size(plan.checkpoint_bytes)} each {CHECKPOINT_INTERVAL_S} s",
        ),
        (
            "Kafka",
            f"{plan.kafka_partitions:,} partitions  {plan.broker_cores:.1f} cores  "
            f"{plan.broker_in_gbps:.2f} Gbit/s in, replicas included",
        ),
        ("", _brokers(plan)),
        ("by user", f"{by_user.task_managers:,} TaskManagers with --user_shards=0, limited by {by_user.limit}"),
        *_cost_rows(plan, prices),
    ]
    return "".join(f"{name:<15}{text}\n" for name, text in rows) + "".join(f"{remark}\n" for remark in remarks(plan))


def _brokers(plan: Plan) -> str:
    brokers = brokers_for(plan)
    machines = f"on MSK {brokers.count} x {brokers.instance_type}, {brokers.volume_gib:,} GiB each"
    return f"{machines}, hold {brokers.hours:,.0f} h of {brokers.terabytes_a_day:,.1f} TB a day"


def _cost_rows(plan: Plan, prices: Prices) -> list[tuple[str, str]]:
    costs = monthly(plan, prices)
    single_zone = between_zones_gb(plan, single_zone=True) * prices.values["between_zones_gb"]
    groups = [
        ("TaskManagers", "JobManagers", "ZooKeeper"),
        ("volumes", "endpoints", "S3"),
        ("deleted checkpoints", "Prometheus"),
    ]
    return [
        ("cost", f"{_usd(together(costs))} USD a month  ({prices.region}, {prices.date}; without Kafka)"),
        *(("", "  ".join(f"{name} {_usd(costs[name])}" for name in group)) for group in groups),
        ("", f"between zones {_usd(costs['between zones'])}  ({single_zone:,.0f} with single_zone)"),
    ]


def _usd(cost: Cost) -> str:
    least, most = f"{cost.least:,.0f}", f"{cost.most:,.0f}"
    return least if least == most else f"{least} to {most}"


def remarks(plan: Plan) -> list[str]:
    """Warnings: the machines are not enough, or the rate is higher than any measured one."""
    lines = []
    if plan.parallelism is not None and not plan.is_enough:
        lines.append(
            f"not enough: {plan.slots:,} slots on {plan.task_managers:,} TaskManagers; it takes "
            f"{plan.least_task_managers:,} TaskManagers with {plan.least_task_managers * SLOTS:,} slots, limited by "
            f"{plan.limit}, to stay below {TARGET_SHARE:.0%}"
        )
    elif not plan.fits_tier:
        lines.append(f"not enough: tier {plan.tier.name} has up to {plan.tier.max_count} TaskManagers")
    if plan.is_extrapolated:
        times = plan.load.events_per_second / plan.figures.highest_rate_seen
        lines.append(
            f"extrapolated: {times:,.0f} times the {plan.figures.highest_rate_seen:,.0f} events/s that were ever seen"
        )
    return lines


def plan_document(plan: Plan, prices: Prices) -> dict[str, Any]:
    """The plan as the document that ``--json`` prints."""
    by_user = Plan(plan.load, plan.figures, plan.tier, by_user=True)
    return {
        "tier": plan.tier.name,
        "instance_type": plan.tier.instance_type,
        "task_managers": plan.task_managers,
        "needed": plan.needed,
        "limit": plan.limit,
        "slots": plan.slots,
        "worker_share": round(plan.worker_share, 3),
        "machine_share": round(plan.machine_share, 3),
        "python_worker_memory_mib": plan.worker_memory_mib,
        "user_shards": plan.user_shards,
        "network_in_gbps": round(plan.network_in_gbps, 3),
        "network_out_gbps": round(plan.network_out_gbps, 3),
        "checkpoint_bytes_least": math.ceil(plan.checkpoint_least_bytes),
        "checkpoint_bytes_most": math.ceil(plan.checkpoint_bytes),
        "kafka_partitions": plan.kafka_partitions,
        "kafka_cores": round(plan.broker_cores, 2),
        "kafka_in_gbps": round(plan.broker_in_gbps, 3),
        "msk": asdict(brokers_for(plan)),
        "by_user_task_managers": by_user.task_managers,
        "cost": cost_document(monthly(plan, prices), prices),
        "enough": plan.is_enough and plan.fits_tier,
        "extrapolated": plan.is_extrapolated,
    }


def _size(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"
