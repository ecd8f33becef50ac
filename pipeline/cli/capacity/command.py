"""``python -m pipeline capacity``: how many slots, machines and partitions a load needs, from measured figures."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pipeline.cli.capacity.model import (
    CHECKPOINT_INTERVAL_S,
    FIGURES_FILE,
    SLOTS,
    TARGET_SHARE,
    TIERS,
    Figures,
    FiguresError,
    Load,
    Plan,
    Tier,
    choose,
    read_figures,
)
from pipeline.cli.command_parser import RaisingParser
from pipeline.console import complain
from pipeline.errors import OptionError

PROGRAM: Final = "python -m pipeline capacity"
_DESCRIPTION: Final = """\
Says how many slots, TaskManagers, partitions and how much memory and network a load needs, from figures that were
measured on a small machine: docs/capacity.md has the formulae, and what of them has been seen.
0: there is a tier for it; 1: no tier is large enough, or --parallelism is too low; 2: an option cannot be used."""
# Option -> least, most and unit of what it may be.
_NUMBERS: Final = {
    "events_per_second": (1, 100_000_000, "events/s"),
    "users": (1, 10_000_000_000, "users in the state"),
    "event_bytes": (1, 1_000_000, "bytes"),
    "actions_per_event": (0, 100, "actions"),
    "action_bytes": (1, 1_000_000, "bytes"),
    "bytes_per_user": (1, 16_000_000, "bytes"),
    "parallelism": (1, 32_768, "slots, a whole number"),
}


def main(argv: Sequence[str]) -> int:
    """Print the plan; the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        plan = _plan(arguments)
    except (OptionError, FiguresError) as error:
        complain(str(error))
        return 2
    sys.stdout.write(f"{json.dumps(document(plan))}\n" if arguments.json else shown(plan))
    return 0 if plan.is_enough and plan.fits_tier else 1


def _parser() -> argparse.ArgumentParser:
    parser = RaisingParser(PROGRAM, "--events_per_second=NUMBER --users=NUMBER [OPTIONS]", _DESCRIPTION)
    parser.add_argument("--events_per_second", metavar="NUMBER", help="at the busiest time")
    parser.add_argument("--users", metavar="NUMBER", help="in the state: with an event within --state_ttl_seconds")
    parser.add_argument("--event_bytes", metavar="NUMBER", help="of an event, JSON (default: as measured)")
    parser.add_argument("--actions_per_event", metavar="NUMBER", default="0.05", help="Kafka actions (default: 0.05)")
    parser.add_argument("--action_bytes", metavar="NUMBER", help="of an action, JSON (default: as measured)")
    parser.add_argument("--bytes_per_user", metavar="NUMBER", help="of a worker's memory (default: as measured)")
    parser.add_argument("--tier", metavar="NAME", help="small, medium or large (default: the smallest that carries it)")
    parser.add_argument("--parallelism", metavar="NUMBER", help="slots that there are (default: as many as it takes)")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="measured figures (default: this release's)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _plan(arguments: argparse.Namespace) -> Plan:
    """The plan that was asked for.

    Raises:
        OptionError, FiguresError: an argument cannot be used.
    """
    given = {name: _number(name, getattr(arguments, name)) for name in _NUMBERS}
    for name in ("events_per_second", "users"):
        if given[name] is None:
            raise OptionError(f"--{name} is missing: give a number; {PROGRAM} --help lists what there is")
    figures, _ = read_figures(arguments.figures or FIGURES_FILE)
    figures = _with(figures, "event_bytes", given["event_bytes"])
    figures = _with(figures, "action_bytes", given["action_bytes"])
    figures = _with(figures, "memory_bytes_per_user", given["bytes_per_user"])
    load = Load(given["events_per_second"] or 0, given["users"] or 0, given["actions_per_event"] or 0)
    parallelism = None if given["parallelism"] is None else round(given["parallelism"])
    return choose(load, figures, _tiers(arguments.tier), parallelism)


def _with(figures: Figures, name: str, value: float | None) -> Figures:
    return figures if value is None else replace(figures, **{name: value})


def _tiers(name: str | None) -> Sequence[Tier]:
    found = [tier for tier in TIERS if name in (None, tier.name)]
    if not found:
        raise OptionError(f"--tier is {name!r}, allowed: {', '.join(tier.name for tier in TIERS)}")
    return found


def _number(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    least, most, unit = _NUMBERS[name]
    allowed = f"allowed: {least:,} to {most:,} {unit}"
    try:
        number = float(text)
    except ValueError:
        raise OptionError(f"--{name} is {text!r}, {allowed}") from None
    if not least <= number <= most or (name == "parallelism" and number != round(number)):
        raise OptionError(f"--{name} is {text}, {allowed}")
    return number


def shown(plan: Plan) -> str:
    """The plan for people."""
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
        ("by user", f"{by_user.task_managers:,} TaskManagers with --user_shards=0, limited by {by_user.limit}"),
    ]
    return "".join(f"{name:<15}{text}\n" for name, text in rows) + "".join(f"{one}\n" for one in remarks(plan))


def remarks(plan: Plan) -> list[str]:
    """What has to be known before such a plan is believed."""
    said = []
    if plan.parallelism is not None and not plan.is_enough:
        said.append(
            f"not enough: {plan.slots:,} slots on {plan.task_managers:,} TaskManagers; it takes "
            f"{plan.least_task_managers:,} TaskManagers with {plan.least_task_managers * SLOTS:,} slots, limited by "
            f"{plan.limit}, to stay below {TARGET_SHARE:.0%}"
        )
    elif not plan.fits_tier:
        said.append(f"not enough: tier {plan.tier.name} has up to {plan.tier.max_count} TaskManagers")
    if plan.is_extrapolated:
        times = plan.load.events_per_second / plan.figures.highest_rate_seen
        said.append(
            f"extrapolated: {times:,.0f} times the {plan.figures.highest_rate_seen:,.0f} events/s that were ever seen"
        )
    return said


def document(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""
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
        "by_user_task_managers": by_user.task_managers,
        "enough": plan.is_enough and plan.fits_tier,
        "extrapolated": plan.is_extrapolated,
    }


def _size(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"
