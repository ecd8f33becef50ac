"""How far the stream's time is behind the clock, and which partitions hold it: from the metrics of Flink's source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

# What is behind by less is at work: a partition's time follows the clock at the distance of --watermark_idleness_ms.
_HELD_MS: Final = 30_000

# The values of the metric time_hold.
_REASONS: Final = {
    1: "not read to the end",
    2: "an open transaction",
    3: "no answer from the broker",
    4: "a partition that no reader has yet",
}


def stream_time(metrics: Mapping[str, Sequence[int]], now_ms: int) -> dict[str, Any]:
    """The part ``time`` of a job's status.

    Args:
        metrics: values by name, as in ``JobSnapshot``.
        now_ms: the clock at that moment.
    """
    behind_ms = _by_partition(metrics, "time_behind_ms")
    held = []
    for partition, hold in sorted(_by_partition(metrics, "time_hold").items()):
        behind = behind_ms.get(partition, 0)
        if hold in _REASONS and behind > _HELD_MS:
            held.append({"partition": partition, "since_ms": now_ms - behind, "reason": _REASONS[hold]})
    return {
        "behind_seconds": round(max(behind_ms.values()) / 1000, 1) if behind_ms else None,
        "held_by": held,
        "records_skipped": sum(metrics.get("records_skipped", ())),
        "position_resets": sum(metrics.get("position_resets", ())),
    }


def time_lines(time: Mapping[str, Any]) -> list[str]:
    """The part ``time`` of a status for people: what holds the stream's time, or how far it is behind."""
    lines = [
        f"partition {held['partition']} holds it at {utc(held['since_ms'])}: {held['reason']}"
        for held in time["held_by"]
    ]
    if not lines:
        behind = time["behind_seconds"]
        lines.append("unknown" if behind is None else f"{behind:,.0f} s behind the clock")
    if time["position_resets"]:
        lines.append(
            f"{time['records_skipped']:,} records skipped that Kafka had deleted, "
            f"{time['position_resets']:,} positions out of range"
        )
    return lines


def utc(time_ms: int) -> str:
    """A time [ms] for people."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _by_partition(metrics: Mapping[str, Sequence[int]], ending: str) -> dict[int, int]:
    found = {}
    for name, values in metrics.items():
        kind, _, rest = name.partition(".")
        number, _, what = rest.partition(".")
        if kind == "partition" and what == ending and values:
            found[int(number)] = max(values)
    return found
