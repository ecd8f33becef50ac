"""What a bounded run did, from Beam's counters."""

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
# Not every run has rules that make any.
_ROWS_OF_SOME: Final = (("actions held", "actions_held"), ("webhooks delivered", "deliveries_delivered"))


@dataclass(frozen=True)
class Summary:
    """Counters by name."""

    counts: Mapping[str, int]

    @classmethod
    def of(cls, result: Any) -> Summary:
        """The counters of a finished pipeline."""
        found = result.metrics().query(MetricsFilter().with_namespace(METRICS_NAMESPACE))["counters"]
        counts: dict[str, int] = {}
        for counter in found:
            counts[counter.key.metric.name] = counts.get(counter.key.metric.name, 0) + counter.committed
        return cls(counts)

    def table(self) -> str:
        """A line a counter."""
        shown = [*_ROWS, *(row for row in _ROWS_OF_SOME if self.counts.get(row[1], 0))]
        values = [f"{self.counts.get(name, 0):,}" for _, name in shown]
        label_width, value_width = max(len(label) for label, _ in shown), max(8, *map(len, values))
        rows = [
            f"{label:<{label_width}}  {value:>{value_width}}" for (label, _), value in zip(shown, values, strict=True)
        ]
        rule = "-" * len(rows[0])
        return "\n".join(["", "Summary", rule, *rows, rule, ""])

    def unaccounted(self) -> int:
        """Events that were read and are neither handled, duplicates, dead letters nor erased: 0, or there is a bug."""
        accounted = ("events_handled", "duplicates", "events_rejected", "events_forgotten")
        return self.counts.get("events", 0) - sum(self.counts.get(name, 0) for name in accounted)
