"""From measured figures to machines: how many slots, TaskManagers and partitions a load needs. Pure arithmetic.

The figures are in ``capacity.json`` beside this module, each with the date, commit and command it comes from, so that a
new measurement changes the answer. docs/capacity.md has the formulae, and what of them has been seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

FIGURES_FILE: Final = Path(__file__).with_name("capacity.json")

# Of a core, or a network: the rest is for bursts, uneven shards, and to catch up after a restart.
TARGET_SHARE: Final = 0.6
# Users are not spread quite evenly, and a worker's memory is no place to be exact.
MEMORY_MARGIN: Final = 1.1
# Flink's process and the workers leave so much to the operating system (infra/terraform/tiers.tf).
MACHINE_MARGIN: Final = 1.1
# Of a Python worker's memory what is not for users (infra/terraform/outputs.tf).
WORKER_RESERVE_MIB: Final = 512
# An upload should not last longer than this part of the time between checkpoints.
UPLOAD_SHARE: Final = 0.5
CHECKPOINT_INTERVAL_S: Final = 60
SLOTS: Final = 4
# What a partition is commonly given, whatever the broker could do.
PARTITION_BYTES_PER_S: Final = 10_000_000
REPLICAS: Final = 3
# A shard is read in one piece after a restore (docs/user-state.md).
USERS_OF_A_SHARD: Final = 10_000
SHARDS_OF_A_SLOT: Final = 8
MOST_SHARDS: Final = 32768

_MIB: Final = 1024 * 1024
_ROUNDING: Final = 1e-9  # what is exactly enough is enough


class FiguresError(ValueError):
    """A file of figures that cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured: CPU-µs an event, bytes a user, an event and an action."""

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
    """What is to be carried. ``users`` are those in the state; ``actions_per_event`` are written to Kafka."""

    events_per_second: float
    users: float
    actions_per_event: float = 0.05


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier of the Terraform configuration and its TaskManagers' instance type, as AWS describes it.

    ``network_gbps`` is what the type has all the time, not what it bursts to.
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
        """Most memory of a Python worker that fits the machine."""
        return math.floor((self.memory_mib / MACHINE_MARGIN - self.task_manager_memory_mib) / SLOTS + _ROUNDING)


TIERS: Final = (
    Tier("small", "m6i.xlarge", 4, 16 * 1024, 1.25, 1, 1, 4096, 4, 32, 100),
    Tier("medium", "m6i.2xlarge", 8, 32 * 1024, 2.5, 4, 8, 8192, 32, 256, 500),
    Tier("large", "m6idn.2xlarge", 8, 32 * 1024, 12.5, 20, 50, 16384, 200, 1600, 2048),
)


def read_figures(path: Path = FIGURES_FILE) -> tuple[Figures, Mapping[str, Mapping[str, Any]]]:
    """The figures of a file, and what it says of each: value, unit, what, date, commit, command.

    Raises:
        FiguresError: it cannot be read, or a figure is missing, unknown or not above 0.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FiguresError(f"figures {str(path)!r}: {error}") from None
    names = [one.name for one in fields(Figures)]
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

    ``parallelism``, where it is given, is how many slots there are. ``by_user`` is for ``user_shards=0``: a user's
    state is read from RocksDB for each event, so that it takes CPU instead of the workers' memory.
    """

    load: Load
    figures: Figures
    tier: Tier
    parallelism: int | None = None
    by_user: bool = False

    @cached_property
    def needed(self) -> dict[str, int]:
        """TaskManagers by what needs them; the largest decides."""
        return {
            "workers' CPU": _up(self.worker_cores / TARGET_SHARE / SLOTS),
            "machines' CPU": _up(self.cores / TARGET_SHARE / self.tier.vcpus),
            "users' memory": _up(self._users_mib / (SLOTS * (self.tier.worker_memory_mib - WORKER_RESERVE_MIB))),
            "network": _up(max(self.network_in_gbps, self.network_out_gbps) / TARGET_SHARE / self.tier.network_gbps),
        }

    @property
    def limit(self) -> str:
        """What decides how many TaskManagers are needed."""
        return max(self.needed, key=lambda name: self.needed[name])

    @property
    def least_task_managers(self) -> int:
        """How many it takes."""
        return max(*self.needed.values(), 1)

    @property
    def task_managers(self) -> int:
        """How many there are: those that it takes, or those of the given parallelism."""
        return self.least_task_managers if self.parallelism is None else math.ceil(self.parallelism / SLOTS)

    @property
    def slots(self) -> int:
        """The parallelism."""
        return self.task_managers * SLOTS if self.parallelism is None else self.parallelism

    @property
    def is_enough(self) -> bool:
        """Whether what there is carries the load within the target shares."""
        return self.task_managers >= self.least_task_managers and self.worker_share <= TARGET_SHARE + _ROUNDING

    @property
    def fits_tier(self) -> bool:
        """Whether the tier may have so many TaskManagers."""
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
        """How busy each worker is: a Python process, so at most one core."""
        return self.worker_cores / self.slots

    @property
    def machine_share(self) -> float:
        """How busy each machine is."""
        return self.cores / (self.task_managers * self.tier.vcpus)

    # Memory

    @property
    def _users_mib(self) -> float:
        return 0.0 if self.by_user else self.load.users * self.figures.memory_bytes_per_user * MEMORY_MARGIN / _MIB

    @property
    def worker_memory_mib(self) -> int:
        """``python_worker_memory_mib`` to set: a worker's users and what it takes without, in steps of 128."""
        return _up((self._users_mib / self.slots + WORKER_RESERVE_MIB) / 128) * 128

    # Network, Gbit/s of all machines together; what workers and Flink say to each other stays on the machine

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
        """Upload of a checkpoint that has all state in it anew."""
        return self.checkpoint_bytes * 8 / 1e9 / (CHECKPOINT_INTERVAL_S * UPLOAD_SHARE)

    @property
    def events_gbps(self) -> float:
        """Events, once."""
        return self.load.events_per_second * self.figures.event_bytes * 8 / 1e9

    @property
    def actions_gbps(self) -> float:
        """Actions."""
        return self.load.events_per_second * self.load.actions_per_event * self.figures.action_bytes * 8 / 1e9

    # Checkpoints

    @property
    def checkpoint_bytes(self) -> float:
        """The whole state: the most that a checkpoint uploads."""
        return self.load.users * self.figures.journal_bytes_per_user

    @property
    def checkpoint_least_bytes(self) -> float:
        """What an interval adds to the journals: the least that a checkpoint uploads."""
        grown = self.load.events_per_second * CHECKPOINT_INTERVAL_S * self.figures.journal_bytes_per_event
        return min(grown, self.checkpoint_bytes)

    # Kafka

    @property
    def kafka_partitions(self) -> int:
        """Partitions of the events topic: one for each slot, more if that is too much for one."""
        per_second = self.load.events_per_second * self.figures.event_bytes
        return max(self.slots, _up(per_second / PARTITION_BYTES_PER_S))

    @property
    def broker_cores(self) -> float:
        """Cores of all brokers together for the leaders' part, at the target share."""
        return self.load.events_per_second * self.figures.broker_us_per_event / 1e6 / TARGET_SHARE

    @property
    def broker_in_gbps(self) -> float:
        """What all brokers are sent: events and actions, and their replicas."""
        return (self.events_gbps + self.actions_gbps) * REPLICAS

    # State

    @property
    def user_shards(self) -> int:
        """``user_shards`` and ``max_parallelism`` to begin with, which stay for the life of the state."""
        wanted = max(SHARDS_OF_A_SLOT * self.slots, _up(self.load.users / USERS_OF_A_SHARD))
        return min(max(wanted, self.tier.user_shards), MOST_SHARDS)

    @property
    def is_extrapolated(self) -> bool:
        """Whether the rate is beyond what was ever seen."""
        return self.load.events_per_second > self.figures.highest_rate_seen


def choose(load: Load, figures: Figures, tiers: Sequence[Tier] = TIERS, parallelism: int | None = None) -> Plan:
    """The plan on the smallest tier whose machines carry the load; on the last one if none does."""
    plans = [Plan(load, figures, tier) for tier in tiers]
    chosen = next((plan for plan in plans if plan.fits_tier), plans[-1])
    return chosen if parallelism is None else replace(chosen, parallelism=parallelism)


def _up(number: float) -> int:
    return math.ceil(number - _ROUNDING)
