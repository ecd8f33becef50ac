"""The sizing model: how many slots, TaskManagers and partitions a load needs. Pure arithmetic on measured figures.

The figures are in ``capacity.json`` beside this module, each with the date, commit and command of its measurement.
docs/capacity.md has the formulae, and which of them have been measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pipeline.errors import OptionError

FIGURES_FILE: Final = Path(__file__).with_name("capacity.json")

# Share of a core or a network that a plan uses; the rest is for bursts, uneven shards and catching up after a restart.
TARGET_SHARE: Final = 0.6
# Users are not spread evenly over workers, and a worker must not run out of memory.
MEMORY_MARGIN: Final = 1.1
# A machine's memory is this many times that of Flink and the workers (infra/terraform/tiers.tf).
MACHINE_MARGIN: Final = 1.1
# A Python worker's memory without users (infra/terraform/outputs.tf).
WORKER_RESERVE_MIB: Final = 512
# Longest upload, as a share of the time between checkpoints.
UPLOAD_SHARE: Final = 0.5
CHECKPOINT_INTERVAL_S: Final = 60
SLOTS: Final = 4
# A common limit for one partition; brokers can do more.
PARTITION_BYTES_PER_S: Final = 10_000_000
REPLICAS: Final = 3
# A shard is read in one piece after a restore (docs/user-state.md).
USERS_OF_A_SHARD: Final = 10_000
SHARDS_OF_A_SLOT: Final = 8
MOST_SHARDS: Final = 32768

_MIB: Final = 1024 * 1024
_ROUNDING: Final = 1e-9  # so that rounding errors do not add a machine


class FiguresError(OptionError):
    """A file of figures that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Measured figures: CPU-µs for each event, bytes for each user, event and action."""

    worker_us_per_event: float
    task_manager_us_per_event: float
    broker_us_per_event: float
    by_user_worker_us_per_event: float
    by_user_task_manager_us_per_event: float
    memory_bytes_per_user: float
    journal_bytes_per_user: float
    journal_bytes_per_event: float
    event_bytes: float
    action_bytes: float
    highest_rate_seen: float


@dataclass(frozen=True, slots=True)
class Load:
    """The load to plan for. ``users`` are those in the state; ``actions_per_event`` go to Kafka."""

    events_per_second: float
    users: float
    actions_per_event: float = 0.05


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier of the Terraform configuration and its TaskManagers' instance type, as AWS describes it.

    ``network_gbps`` is the sustained bandwidth of the type, without bursts.
    """

    name: str
    instance_type: str
    vcpus: int
    memory_mib: int
    network_gbps: float
    min_count: int
    max_count: int
    task_manager_memory_mib: int
    kafka_partitions: int
    user_shards: int
    checkpoint_storage_gib: int

    @property
    def worker_memory_mib(self) -> int:
        """The largest Python worker that fits the machine."""
        return math.floor((self.memory_mib / MACHINE_MARGIN - self.task_manager_memory_mib) / SLOTS + _ROUNDING)


TIERS: Final = (
    Tier("small", "m6i.xlarge", 4, 16 * 1024, 1.25, 1, 1, 4096, 4, 32, 100),
    Tier("medium", "m6i.2xlarge", 8, 32 * 1024, 2.5, 4, 8, 8192, 32, 256, 500),
    Tier("large", "m6idn.2xlarge", 8, 32 * 1024, 12.5, 20, 50, 16384, 200, 1600, 2048),
)


def read_figures(path: Path = FIGURES_FILE) -> tuple[Figures, Mapping[str, Mapping[str, Any]]]:
    """Read a file of figures.

    Returns:
        The figures, and for each the file's entry: value, unit, what, date, commit, command.

    Raises:
        FiguresError: the file cannot be read, or a figure is missing, unknown or not above 0.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FiguresError(f"figures {str(path)!r}: {error}") from None
    names = [figure.name for figure in fields(Figures)]
    if not isinstance(document, dict) or set(document) != set(names):
        raise FiguresError(f"figures {str(path)!r}: allowed are exactly {', '.join(names)}")
    values = {}
    for name in names:
        value = document[name].get("value") if isinstance(document[name], dict) else None
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise FiguresError(f"figures {str(path)!r}: {name} is {value!r}, allowed: a number above 0")
        values[name] = float(value)
    return Figures(**values), document


@dataclass(frozen=True)
class Plan:
    """What a load needs on a tier's machines.

    ``parallelism`` is the number of slots; without it the plan has as many as the load needs. ``by_user`` plans for
    ``user_shards=0``, where each event reads its user's state from RocksDB: more CPU, but no workers' memory.
    """

    load: Load
    figures: Figures
    tier: Tier
    parallelism: int | None = None
    by_user: bool = False

    @cached_property
    def needed(self) -> dict[str, int]:
        """The number of TaskManagers that each resource needs; the largest decides."""
        return {
            "workers' CPU": _ceil(self.worker_cores / TARGET_SHARE / SLOTS),
            "machines' CPU": _ceil(self.cores / TARGET_SHARE / self.tier.vcpus),
            "users' memory": _ceil(self._users_mib / (SLOTS * (self.tier.worker_memory_mib - WORKER_RESERVE_MIB))),
            "network": _ceil(max(self.network_in_gbps, self.network_out_gbps) / TARGET_SHARE / self.tier.network_gbps),
        }

    @property
    def limit(self) -> str:
        """The resource that needs the most TaskManagers."""
        return max(self.needed, key=lambda name: self.needed[name])

    @property
    def least_task_managers(self) -> int:
        """The number of TaskManagers that the load needs."""
        return max(*self.needed.values(), 1)

    @property
    def task_managers(self) -> int:
        """The number of TaskManagers in the plan: as the load needs, or as the given parallelism has."""
        return self.least_task_managers if self.parallelism is None else math.ceil(self.parallelism / SLOTS)

    @property
    def slots(self) -> int:
        """The parallelism."""
        return self.task_managers * SLOTS if self.parallelism is None else self.parallelism

    @property
    def is_enough(self) -> bool:
        """Whether the planned machines carry the load within the target shares."""
        return self.task_managers >= self.least_task_managers and self.worker_share <= TARGET_SHARE + _ROUNDING

    @property
    def fits_tier(self) -> bool:
        """Whether the tier allows that many TaskManagers."""
        return self.task_managers <= self.tier.max_count

    # CPU

    @property
    def worker_cores(self) -> float:
        """Cores that all Python workers keep busy."""
        figures = self.figures
        us_per_event = figures.by_user_worker_us_per_event if self.by_user else figures.worker_us_per_event
        return self.load.events_per_second * us_per_event / 1e6

    @property
    def cores(self) -> float:
        """Cores that workers and Flink keep busy."""
        figures = self.figures
        flink_us = figures.by_user_task_manager_us_per_event if self.by_user else figures.task_manager_us_per_event
        return self.worker_cores + self.load.events_per_second * flink_us / 1e6

    @property
    def worker_share(self) -> float:
        """The share of a core that each worker uses. It is a Python process, so one core is the limit."""
        return self.worker_cores / self.slots

    @property
    def machine_share(self) -> float:
        """The share of its cores that each machine uses."""
        return self.cores / (self.task_managers * self.tier.vcpus)

    # Memory

    @property
    def _users_mib(self) -> float:
        return 0.0 if self.by_user else self.load.users * self.figures.memory_bytes_per_user * MEMORY_MARGIN / _MIB

    @property
    def worker_memory_mib(self) -> int:
        """The value for ``python_worker_memory_mib``: a worker's users and its reserve, in steps of 128 MiB."""
        return _ceil((self._users_mib / self.slots + WORKER_RESERVE_MIB) / 128) * 128

    # Network, Gbit/s of all machines together, without the traffic between workers and Flink on a machine

    @property
    def network_in_gbps(self) -> float:
        """Events from Kafka, and again from other machines: the shuffle brings nearly all of them from elsewhere."""
        return 2 * self.events_gbps

    @property
    def network_out_gbps(self) -> float:
        """Events to other machines, actions to Kafka, checkpoints to S3."""
        return self.events_gbps + self.actions_gbps + self.upload_gbps

    @property
    def upload_gbps(self) -> float:
        """Upload of a checkpoint that writes the whole state."""
        return self.checkpoint_bytes * 8 / 1e9 / (CHECKPOINT_INTERVAL_S * UPLOAD_SHARE)

    @property
    def events_gbps(self) -> float:
        """The events, counted once."""
        return self.load.events_per_second * self.figures.event_bytes * 8 / 1e9

    @property
    def actions_gbps(self) -> float:
        """The actions to Kafka."""
        return self.load.events_per_second * self.load.actions_per_event * self.figures.action_bytes * 8 / 1e9

    # Checkpoints

    @property
    def checkpoint_bytes(self) -> float:
        """The size of the whole state, which is the largest upload."""
        return self.load.users * self.figures.journal_bytes_per_user

    @property
    def checkpoint_least_bytes(self) -> float:
        """What the journals grow by in an interval, which is the smallest upload."""
        grown = self.load.events_per_second * CHECKPOINT_INTERVAL_S * self.figures.journal_bytes_per_event
        return min(grown, self.checkpoint_bytes)

    # Kafka

    @property
    def kafka_partitions(self) -> int:
        """Partitions of the events topic: one for each slot, more if that is too much for one."""
        per_second = self.load.events_per_second * self.figures.event_bytes
        return max(self.slots, _ceil(per_second / PARTITION_BYTES_PER_S))

    @property
    def broker_cores(self) -> float:
        """Cores of all brokers together for the leaders' part, at the target share."""
        return self.load.events_per_second * self.figures.broker_us_per_event / 1e6 / TARGET_SHARE

    @property
    def broker_in_gbps(self) -> float:
        """What all brokers receive: events and actions, and their replicas."""
        return (self.events_gbps + self.actions_gbps) * REPLICAS

    # State

    @property
    def user_shards(self) -> int:
        """The value for ``user_shards`` and ``max_parallelism``, which are fixed for the life of the state."""
        shards = max(SHARDS_OF_A_SLOT * self.slots, _ceil(self.load.users / USERS_OF_A_SHARD))
        return min(max(shards, self.tier.user_shards), MOST_SHARDS)

    @property
    def is_extrapolated(self) -> bool:
        """Whether the rate is higher than any that was measured."""
        return self.load.events_per_second > self.figures.highest_rate_seen


def choose(load: Load, figures: Figures, tiers: Sequence[Tier] = TIERS, parallelism: int | None = None) -> Plan:
    """The plan on the smallest tier whose machines carry the load; on the last one if none does."""
    plans = [Plan(load, figures, tier) for tier in tiers]
    chosen = next((plan for plan in plans if plan.fits_tier), plans[-1])
    return chosen if parallelism is None else replace(chosen, parallelism=parallelism)


def _ceil(number: float) -> int:
    return math.ceil(number - _ROUNDING)
