"""What a plan's cluster costs a month: the model's quantities times the prices in ``prices.json``.

Not in it: requests to S3, CloudWatch, KMS, traffic to the internet, Kafka's brokers and their replicas, taxes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.cli.capacity.model import CHECKPOINT_INTERVAL_S, FiguresError, Plan

PRICES_FILE: Final = Path(__file__).with_name("prices.json")
HOURS: Final = 730
_MONTH_S: Final = HOURS * 3600
_DAY_S: Final = 24 * 3600
_GIB: Final = 1024**3
ZONES: Final = 3
# infra/terraform: volumes of a Flink node, of a ZooKeeper node, and RocksDB's above what gp3 includes.
NODE_GIB: Final = 30 + 50 + 100
ZOOKEEPER_GIB: Final = 30 + 20
ROCKSDB_IOPS: Final = 6000 - 3000
ROCKSDB_THROUGHPUT: Final = 250 - 125
ENDPOINTS: Final = 7
SAVEPOINT_GIB: Final = 500
# What nodes send to Amazon Managed Service for Prometheus once a minute: the pipeline's of a slot with one rule,
# destination and partition (a further rule has 3, a destination 13), Flink's of a slot, and those of a JobManager.
# Flink's were counted on the job of tests/faults on 2026-11-30: 34 of a TaskManager with two slots, and pendingRecords.
SERIES_OF_OURS: Final = 40
SERIES_OF_FLINK: Final = 18
SERIES_OF_A_SLOT: Final = SERIES_OF_OURS + SERIES_OF_FLINK
SERIES_OF_A_JOBMANAGER: Final = 7
# S3 counts whole days from the next midnight on, so that a day of retention lasts a day and a half on average.
DELETED_CHECKPOINT_DAYS: Final = 1.5


@dataclass(frozen=True, slots=True)
class Machines:
    """What a tier has beside its TaskManagers' instances."""

    jobmanager_type: str
    jobmanagers: int
    rocksdb_gib: int  # gp3 on each TaskManager; 0 with instance store


MACHINES: Final[Mapping[str, Machines]] = {
    "small": Machines("c6i.large", 1, 50),
    "medium": Machines("c6i.xlarge", 2, 100),
    "large": Machines("c6i.2xlarge", 3, 0),
}


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in USD by name, and where and when they were in force."""

    values: Mapping[str, float]
    region: str
    date: str


@dataclass(frozen=True, slots=True)
class Cost:
    """USD a month: the least and the most that the model gives."""

    least: float
    most: float

    def __add__(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(self.least + other.least, self.most + other.most)


def read_prices(path: Path = PRICES_FILE) -> Prices:
    """Read a file of prices.

    Raises:
        FiguresError: the file cannot be read, or a price is missing, unknown or not above 0.
    """
    names = set(json.loads(PRICES_FILE.read_text("utf-8")))
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FiguresError(f"prices {str(path)!r}: {error}") from None
    if not isinstance(document, dict) or set(document) != names:
        raise FiguresError(f"prices {str(path)!r}: allowed are exactly {', '.join(sorted(names))}")
    source = document.pop("source")
    for name, entry in document.items():
        value = entry.get("value") if isinstance(entry, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise FiguresError(f"prices {str(path)!r}: {name} is {value!r}, allowed: a number above 0")
    region, date = (source.get(key) if isinstance(source, dict) else None for key in ("region", "date"))
    if not isinstance(region, str) or not isinstance(date, str):
        raise FiguresError(f"prices {str(path)!r}: source needs a region and a date, as text")
    return Prices({name: float(entry["value"]) for name, entry in document.items()}, region, date)


def monthly(plan: Plan, prices: Prices) -> dict[str, Cost]:
    """What each part costs in USD a month."""
    price, machines, count = prices.values, MACHINES[plan.tier.name], plan.task_managers
    gib = (machines.jobmanagers + count) * NODE_GIB + count * machines.rocksdb_gib + 3 * ZOOKEEPER_GIB
    extra = ROCKSDB_IOPS * price["gp3_iops"] + ROCKSDB_THROUGHPUT * price["gp3_throughput"]
    volumes = gib * price["gp3_gib"] + (count * extra if machines.rocksdb_gib else 0)
    deleted = [size / _GIB * price["s3_gib"] for size in deleted_checkpoint_bytes(plan)]
    live = plan.tier.checkpoint_storage_gib + SAVEPOINT_GIB
    return {
        "TaskManagers": _same(count * price[plan.tier.instance_type] * HOURS),
        "JobManagers": _same(machines.jobmanagers * price[machines.jobmanager_type] * HOURS),
        "ZooKeeper": _same(3 * price["t3.small"] * HOURS),
        "volumes": _same(volumes),
        "endpoints": _same(ENDPOINTS * ZONES * price["interface_endpoint"] * HOURS),
        "S3": _same(live * price["s3_gib"]),
        "deleted checkpoints": Cost(*deleted),
        "between zones": _same(between_zones_gb(plan) * price["between_zones_gb"]),
        "Prometheus": _same(prometheus_samples(plan) / 1e6 * price["prometheus_samples"]),
    }


def together(costs: Mapping[str, Cost]) -> Cost:
    """All parts."""
    return sum(costs.values(), Cost(0, 0))


def deleted_checkpoint_bytes(plan: Plan) -> tuple[float, float]:
    """Bytes of deleted checkpoints that S3 still keeps: what all checkpoints of these days uploaded, least and most."""
    checkpoints = DELETED_CHECKPOINT_DAYS * _DAY_S / CHECKPOINT_INTERVAL_S
    return checkpoints * plan.checkpoint_least_bytes, checkpoints * plan.checkpoint_bytes


def checkpoint_bucket_gib(plan: Plan) -> int:
    """How large the checkpoint bucket gets at most: what the tier plans for, and deleted checkpoints."""
    return plan.tier.checkpoint_storage_gib + math.ceil(deleted_checkpoint_bytes(plan)[1] / _GIB)


def prometheus_samples(plan: Plan) -> float:
    """Samples a month that Amazon Managed Service for Prometheus takes in."""
    jobmanagers = MACHINES[plan.tier.name].jobmanagers
    return (plan.slots * SERIES_OF_A_SLOT + jobmanagers * SERIES_OF_A_JOBMANAGER) * HOURS * 60


def between_zones_gb(plan: Plan, *, single_zone: bool = False) -> float:
    """GB a month that go to another zone: from and to leaders of Kafka in three zones, and in the shuffle."""
    load, figures = plan.load, plan.figures
    to_kafka = load.actions_per_event * figures.action_bytes
    kafka = (figures.event_bytes + to_kafka) * (1 - 1 / ZONES)
    shuffle = 0.0 if single_zone else figures.event_bytes * _other_zone(plan.task_managers)
    return load.events_per_second * (kafka + shuffle) * _MONTH_S / 1e9


def _other_zone(count: int) -> float:
    """The share of the shuffle that goes to a TaskManager in another zone, of ``count`` in three zones."""
    by_zone = [count // ZONES + (zone < count % ZONES) for zone in range(ZONES)]
    return 1 - sum((nodes / count) ** 2 for nodes in by_zone)


def _same(usd: float) -> Cost:
    return Cost(usd, usd)


def cost_document(costs: Mapping[str, Cost], prices: Prices) -> dict[str, Any]:
    """The costs as a part of the document that ``--json`` prints."""
    rows = {**costs, "together": together(costs)}
    return {
        "usd_a_month": {name: [round(cost.least), round(cost.most)] for name, cost in rows.items()},
        "region": prices.region,
        "date": prices.date,
    }
