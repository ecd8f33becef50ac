"""Which brokers of Amazon MSK carry a load, and how much of a disk a day of its records takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from pipeline.cli.capacity.model import REPLICAS, TARGET_SHARE, Plan

_ZONES: Final = 3
_MOST: Final = 30  # of a cluster, unless AWS allows more
LARGEST_VOLUME_GIB: Final = 16_384
_GIB: Final = 1024**3
_DAY_S: Final = 86_400


class BrokerType(NamedTuple):
    """An instance type of MSK: vCPUs and sustained bandwidth."""

    name: str
    vcpus: int
    gbps: float


TYPES: Final = (
    BrokerType("kafka.m7g.large", 2, 0.937),
    BrokerType("kafka.m7g.xlarge", 4, 1.876),
    BrokerType("kafka.m7g.2xlarge", 8, 3.75),
    BrokerType("kafka.m7g.4xlarge", 16, 7.5),
    BrokerType("kafka.m7g.8xlarge", 32, 15.0),
)


@dataclass(frozen=True, slots=True)
class Brokers:
    """The brokers for a load. ``hours`` is how long their volumes hold all records, replicas included."""

    instance_type: str
    count: int
    volume_gib: int
    terabytes_a_day: float
    hours: float


def brokers_for(plan: Plan) -> Brokers:
    """The smallest type of which one broker a zone is enough; of the largest one as many as it takes."""
    # Leaders were measured; a replica is taken to cost as much as its leader.
    cores = plan.broker_cores * REPLICAS
    gbps = plan.broker_in_gbps / TARGET_SHARE
    chosen = next((kind for kind in TYPES if _count(kind, cores, gbps) == _ZONES), TYPES[-1])
    count = min(_count(chosen, cores, gbps), _MOST)
    bytes_a_day = plan.broker_in_gbps * 1e9 / 8 * _DAY_S
    volume_gib = min(math.ceil(bytes_a_day / count / _GIB), LARGEST_VOLUME_GIB)
    hours = 24 * volume_gib * count * _GIB / bytes_a_day
    return Brokers(chosen.name, count, volume_gib, bytes_a_day / 1e12, hours)


def _count(kind: BrokerType, cores: float, gbps: float) -> int:
    return _ZONES * max(1, math.ceil(max(cores / kind.vcpus, gbps / kind.gbps) / _ZONES))
