"""What the topics say afterwards: latency by broker time, what was lost or came twice, how a kill was survived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# Below so many actions the slowest thousandth is a matter of one or two of them.
_ENOUGH_FOR_THOUSANDTHS: Final = 2000
# After a kill a row has caught up when actions come as soon as this again.
_CAUGHT_UP_MS: Final = 1000


@dataclass(frozen=True)
class Expected:
    """An event that must lead to an action, and when the broker took it (ms)."""

    appended_ms: int


@dataclass
class Log:
    """The firing events of a topic and the actions' append times (ms), both by event id."""

    expected: dict[str, Expected] = field(default_factory=dict)
    actions: dict[str, list[int]] = field(default_factory=dict)


def best_round(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the round with the highest rate: what else a machine does only slows. ``rounds`` are all rates."""
    return max(rounds, key=lambda figures: float(figures["events/s"])) | {
        "rounds": [figures["events/s"] for figures in rounds]
    }


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` of them are; ``values`` are sorted."""
    return values[min(len(values) - 1, int(len(values) * part))]


def latency(log: Log, from_ms: int, to_ms: int) -> dict[str, float | None]:
    """From broker append to broker append, of events appended in between; ms. p99.9 only of enough actions."""
    waits = sorted(
        min(log.actions[event_id]) - expected.appended_ms
        for event_id, expected in log.expected.items()
        if from_ms <= expected.appended_ms < to_ms and event_id in log.actions
    )
    if not waits:
        return {"actions": 0, "p50": None, "p99": None, "p99.9": None, "max": None}
    return {
        "actions": len(waits),
        "p50": quantile(waits, 0.5),
        "p99": quantile(waits, 0.99),
        "p99.9": quantile(waits, 0.999) if len(waits) >= _ENOUGH_FOR_THOUSANDTHS else None,
        "max": waits[-1],
    }


def fidelity(log: Log) -> dict[str, int]:
    """Actions that are missing, that came again, and that no event asked for."""
    return {
        "expected": len(log.expected),
        "lost": sum(1 for event_id in log.expected if event_id not in log.actions),
        "duplicated": sum(len(times) - 1 for times in log.actions.values()),
        "unexpected": sum(1 for event_id in log.actions if event_id not in log.expected),
    }


def recovery(log: Log, killed_ms: int) -> dict[str, float | None]:
    """Seconds from the kill to the first action afterwards, and until no event waits longer than a second again."""
    after = [at_ms for times in log.actions.values() for at_ms in times if at_ms > killed_ms]
    late = [
        min(times)
        for event_id, times in log.actions.items()
        if (expected := log.expected.get(event_id)) and min(times) > killed_ms
        and min(times) - expected.appended_ms > _CAUGHT_UP_MS
    ]  # fmt: skip
    return {
        "first action s": (min(after) - killed_ms) / 1e3 if after else None,
        "caught up s": (max(late) - killed_ms) / 1e3 if late else (0.0 if after else None),
    }


def ratios(figures: Mapping[str, float], base: str, *, inverse: bool = False) -> dict[str, float]:
    """Each figure against the base row's; ``inverse`` where less is better."""
    if not figures.get(base):
        return {}
    return {
        name: figures[base] / value if inverse else value / figures[base] for name, value in figures.items() if value
    }
