"""What is varied, and what is measured at each value of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from tests.benchmarks.growth.stage import Point

Claim = Literal["flat", "linear", "level"]


@dataclass(frozen=True)
class OnStack:
    """A point on the real Kafka and Flink: options of the pipeline, and either a steady rate or a backlog.

    ``rate`` is in events/s, 0 for a backlog of ``events`` that is worked off; ``seconds`` is how long the rate lasts.
    """

    slots: int = 1
    options: tuple[str, ...] = ()
    users: int = 1000
    rate: int = 2000
    seconds: float = 40.0
    checkpoint_s: float = 10.0
    events: int = 500_000


@dataclass(frozen=True)
class Dimension:
    """One thing that grows. ``values`` are by series: points by the value of what grows.

    ``claim`` is what is expected of an event's cost: ``flat``, whatever the value from ``base`` on; at most ``linear``;
    or ``level``, the same as at ``base``.
    """

    name: str
    title: str
    unit: str
    claim: Claim
    series: Mapping[str, Mapping[float, Point | OnStack]]
    base: float = 0
    note: str = ""

    @property
    def on_stack(self) -> bool:
        """Whether it takes Kafka and Flink."""
        return any(isinstance(point, OnStack) for points in self.series.values() for point in points.values())


@dataclass(frozen=True)
class Sizes:
    """How much is measured; ``quick`` ones show whether all runs, not how fast."""

    users: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    histories: tuple[int, ...] = (10, 50, 100, 200)
    rules: tuple[int, ...] = (1, 5, 10, 20, 50)
    lingers_ms: tuple[int, ...] = (0, 1, 5, 10, 20, 50)
    bundles_ms: tuple[int, ...] = (2, 6, 10, 20, 50, 100)
    bundle_sizes: tuple[int, ...] = (10, 100, 1000, 10_000)
    shards: tuple[int, ...] = (4, 8, 16, 32, 64)
    parallelisms: tuple[int, ...] = (1, 2, 4)
    few_users: int = 5000
    events: int = 150_000
    most_events: int = 2_000_000
    on_stack: OnStack = field(default_factory=OnStack)


QUICK: Final = Sizes(
    users=(1000, 4000),
    histories=(10, 100),
    rules=(1, 10),
    lingers_ms=(0, 20),
    bundles_ms=(5, 50),
    bundle_sizes=(10, 1000),
    shards=(4, 32),
    parallelisms=(1, 2),
    few_users=1000,
    events=20_000,
    most_events=20_000,
    on_stack=OnStack(users=50, rate=200, seconds=12.0, checkpoint_s=5.0, events=60_000),
)


def dimensions(sizes: Sizes) -> dict[str, Dimension]:
    """All of them, by name."""
    few = Point(users=sizes.few_users, events=sizes.events)
    load = sizes.on_stack

    def of_users(history: int) -> dict[float, Point]:
        return {
            users: Point(users, history, events=min(max(sizes.events, 2 * users), sizes.most_events))
            for users in sizes.users
        }

    def of_option(name: str, values: Sequence[int]) -> dict[str, dict[float, OnStack]]:
        return {"": {value: replace(load, options=(f"--{name}={value}",)) for value in values}}

    made = [
        Dimension(
            "users", "Users in state, in one slot", "users", "flat",
            {"100 events of history": of_users(100), "10 events of history": of_users(10)},
            base=sizes.users[min(1, len(sizes.users) - 1)],
        ),
        Dimension(
            "history", "Length of the history", "events", "linear",
            {
                "rules ask for fields": {size: replace(few, history=size) for size in sizes.histories},
                "a rule goes through it": {size: replace(few, history=size, scan=True) for size in sizes.histories},
            },
        ),
        Dimension(
            "rules", "Rules", "rules", "linear", {"": {count: replace(few, rules=count) for count in sizes.rules}}
        ),
        Dimension(
            "batch_linger_ms", "How long a record may wait for others", "ms", "linear",
            of_option("batch_linger_ms", sizes.lingers_ms),
        ),
        Dimension(
            "bundle_time_ms", "Longest time of a Beam bundle", "ms", "linear",
            of_option("bundle_time_ms", sizes.bundles_ms),
        ),
        Dimension(
            "bundle_size", "Micro-batches that end a bundle", "batches", "linear",
            of_option("bundle_size", sizes.bundle_sizes),
        ),
        Dimension(
            "user_shards", "User shards of one slot", "shards", "linear", of_option("user_shards", sizes.shards)
        ),
        Dimension(
            "parallelism", "Parallelism, at the highest rate", "slots", "level",
            {"": {slots: replace(load, slots=slots, rate=0) for slots in sizes.parallelisms}},
            base=sizes.parallelisms[0],
            note="Broker, Flink, workers and user API share the cores of one machine: more slots than cores say "
            "whether the cost of an event stays, not how far the rate goes.",
        ),
    ]  # fmt: skip
    return {dimension.name: dimension for dimension in made}


def point_figures(point: Point | OnStack) -> dict[str, Any]:
    """The point as it is kept beside its figures."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(point).items()}
