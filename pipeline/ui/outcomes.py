"""A rule's decisions by outcome over time, as small charts on one axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.ui.sparkline import Mark, Sparkline
from transforms.domain.shard.decisions import Decision

# Name, length of a bin [ms] and how many bins, the shortest first.
_SPANS: Final = (("hour", 60_000, 60), ("six hours", 300_000, 72), ("day", 1_800_000, 48), ("week", 10_800_000, 56))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """A chart and a count for each outcome, the most frequent first; all end at ``to_ms`` and begin at ``from_ms``."""

    span: str
    from_ms: int
    to_ms: int
    charts: Sequence[tuple[str, int, Sparkline]]


def outcomes_over_time(
    decisions: Sequence[Decision], log_begins_ms: int, now_ms: int, changes: Iterable[tuple[int, str]] = ()
) -> Outcomes:
    """Count decisions by outcome in bins; before the log's first record is a gap, not a zero.

    Args:
        decisions: those of the rule, of the newest records of the log.
        log_begins_ms: time of the oldest of these records.
        now_ms: the end.
        changes: time and text of what to mark.
    """
    oldest_ms = min((decision.time for decision in decisions), default=now_ms)
    span, bin_ms, bins = next((span for span in _SPANS if oldest_ms > now_ms - span[1] * span[2]), _SPANS[-1])
    first = now_ms // bin_ms + 1 - bins
    from_ms, to_ms = first * bin_ms, (first + bins) * bin_ms
    counts: dict[str, Counter[int]] = {}
    for decision in decisions:
        if from_ms <= decision.time < to_ms:
            counts.setdefault(decision.decision, Counter())[decision.time // bin_ms - first] += 1
    marks = [Mark((at_ms - from_ms) / (to_ms - from_ms), text) for at_ms, text in changes if from_ms <= at_ms < to_ms]
    known_from = log_begins_ms // bin_ms - first
    charts = []
    for outcome, found in sorted(counts.items(), key=lambda item: -item[1].total()):
        values = [found[place] if place >= known_from else None for place in range(bins)]
        chart = Sparkline(f"Decisions {outcome}", "", {outcome: values}, marks, f"the last {span}")
        charts.append((outcome, found.total(), chart))
    return Outcomes(span, from_ms, to_ms, charts)
