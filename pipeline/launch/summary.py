"""The summary of a bounded run, from Beam's counters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from apache_beam.metrics import MetricsFilter

from pipeline.console import table_lines
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
# Of each rule: heading and name of its counter; the second part is shown only if a rule has one that is not 0.
_OF_RULES: Final = (
    ("evaluated", "evaluated"),
    ("allowed", "allowed"),
    ("capped", "capped"),
    ("cooled down", "cooled_down"),
    ("fired", "fired"),
)
_RARE_OF_RULES: Final = (
    ("inactive", "inactive"),
    ("begun", "begun"),
    ("followed", "followed"),
    ("timed out", "timed_out"),
    ("group cap", "capped_by_group"),
    ("outranked", "outranked"),
    ("suppressed", "suppressed"),
    ("expired", "expired"),
    ("held", "held"),
    ("dropped", "dropped"),
    ("recheck", "recheck_refused"),
    ("errors", "error"),
    ("set aside", "quarantined"),
)
_LETTER: Final = "dead_letter."
_ACTION: Final = re.compile(r"action\.(debug|kafka|webhook)\.(.*)\.(?:emitted|queued)")


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

    def letters(self) -> str:
        """The number of dead letters of each reason, the most frequent first; empty if there are none."""
        numbers = {name.removeprefix(_LETTER): value for name, value in self.counts.items() if name.startswith(_LETTER)}
        rows = [
            [reason, f"{number:,}"] for reason, number in sorted(numbers.items(), key=lambda item: -item[1]) if number
        ]
        return _aligned([["dead letters by reason", ""], *rows]) if rows else ""

    def targets(self, actions_topic: str) -> str:
        """The number of actions of each kind and target; ``actions_topic`` is that of actions that name none."""
        actions = [_ACTION.fullmatch(name) for name in self.counts]
        rows = [
            [_target(found[1], found[2], actions_topic), f"{self.counts[found[0]]:,}"]
            for found in actions
            if found and self.counts[found[0]]
        ]
        return _aligned([["actions by target", ""], *sorted(rows)]) if rows else ""

    def rules(self, names: Sequence[str]) -> str:
        """What each of these rules did, a line for each."""
        rare = [row for row in _RARE_OF_RULES if any(self.counts.get(f"rule.{name}.{row[1]}") for name in names)]
        columns = (*_OF_RULES, *rare)
        rows = [
            [name, *(f"{self.counts.get(f'rule.{name}.{counter}', 0):,}" for _, counter in columns)] for name in names
        ]
        return _aligned([["rule", *(heading for heading, _ in columns)], *rows])

    def unaccounted(self) -> int:
        """The number of events that were neither handled nor duplicates, dead letters or erased; not 0 is a bug."""
        accounted = ("events_handled", "duplicates", "events_rejected", "events_forgotten")
        return self.counts.get("events", 0) - sum(self.counts.get(name, 0) for name in accounted)


def _target(kind: str, target: str, actions_topic: str) -> str:
    """The kind and target of an action whose counter is ``action.KIND.TARGET.emitted``."""
    if kind == "debug":
        return kind
    return f"{kind} {actions_topic if (kind, target) == ('kafka', 'default') else target}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """The rows after an empty line, the first of them as heading."""
    return "\n".join(["", *table_lines(rows), ""])
