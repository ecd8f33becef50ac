"""The summary of a bounded run, from Beam's counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from apache_beam.metrics import MetricsFilter

from transforms.adapters.telemetry.metric_names import METRICS_NAMESPACE

_ROWS: Final = (
    ("events", "events"),
    ("events handled", "events_handled"),
    ("duplicates", "duplicates"),
    ("users", "users_loaded"),
    ("state hits", "state_hits"),
    ("state misses", "state_misses"),
    ("rule matches", "rule_matches"),
    ("rule errors", "rule_errors"),
    ("actions", "actions"),
    ("dead letters", "dead_letters"),
)
# Shown only if they are not 0.
_OPTIONAL_ROWS: Final = (
    ("actions held", "actions_held"),
    ("webhooks delivered", "deliveries_delivered"),
    ("partitions out of range", "offsets_out_of_range"),
    ("offsets skipped", "offsets_skipped"),
)


@dataclass(frozen=True)
class Summary:
    """Counters by name."""

    counts: Mapping[str, int]

    @classmethod
    def of(cls, result: Any) -> Summary:
        """The counters of a finished pipeline."""
        counters = result.metrics().query(MetricsFilter().with_namespace(METRICS_NAMESPACE))["counters"]
        counts: dict[str, int] = {}
        for counter in counters:
            counts[counter.key.metric.name] = counts.get(counter.key.metric.name, 0) + counter.committed
        return cls(counts)

    def table(self) -> str:
        """The summary as text, a line for each counter."""
        shown = [*_ROWS, *(row for row in _OPTIONAL_ROWS if self.counts.get(row[1], 0))]
        values = [f"{self.counts.get(name, 0):,}" for _, name in shown]
        label_width, value_width = max(len(label) for label, _ in shown), max(8, *map(len, values))
        rows = [
            f"{label:<{label_width}}  {value:>{value_width}}" for (label, _), value in zip(shown, values, strict=True)
        ]
        rule = "-" * len(rows[0])
        return "\n".join(["", "Summary", rule, *rows, rule, ""])

    def unaccounted(self) -> int:
        """The number of events that were neither handled nor duplicates, dead letters or erased; not 0 is a bug."""
        accounted = ("events_handled", "duplicates", "events_rejected", "events_forgotten")
        return self.counts.get("events", 0) - sum(self.counts.get(name, 0) for name in accounted)
