"""The overview: an hour of the job as small charts on one time axis, what changed, user API and destinations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import flask
from flask import Flask

from pipeline.job.stream_time import time_lines
from pipeline.ui.hour import Bin, Change, Hour, values
from pipeline.ui.job import JobError, RunningJob
from pipeline.ui.sparkline import Mark, Sparkline, number
from pipeline.ui.watch import Watch
from transforms.domain.rules.sets import RuleSet


@dataclass(frozen=True, slots=True)
class Card:
    """A chart with its value of the last minute."""

    chart: Sparkline
    value: str
    unit: str


class OverviewPages:
    """The page ``/``."""

    def __init__(self, job: RunningJob, watch: Watch) -> None:
        self._job = job
        self._watch = watch

    def add_to(self, app: Flask) -> None:
        """Add the page's route."""
        app.add_url_rule("/", view_func=self.overview, methods=["GET"])

    def overview(self) -> str:
        """The hour, what changed, and the parts that the job depends on."""
        status, trouble, hour = self._watch.status, self._watch.trouble, self._watch.hour()
        rule_set, problem = None, None
        try:
            rule_set = self._job.rule_set()
        except JobError as error:
            problem = str(error)
        changes = with_notes(hour.changes, () if rule_set is None else (rule_set,))
        return flask.render_template(
            "overview.html",
            cards=cards(hour, changes, status),
            hour=hour,
            changes=list(reversed(changes)),
            rule_set=rule_set,
            troubles=[text for text in (trouble, problem) if text],
            time_lines=[] if status is None else time_lines(status["time"]),
        )


def cards(hour: Hour, changes: Iterable[Change], status: Mapping[str, Any] | None) -> list[Card]:
    """The charts, on the same axis and with the same marks."""
    marks = [Mark(hour.position(change.at_ms), change.text, change.is_bad) for change in changes]
    seen = status or {}

    def at(*names: str) -> Any:
        found: Any = seen
        for name in names:
            found = (found or {}).get(name)
        return found

    def rate(counter: str, factor: float = 1.0) -> list[float | None]:
        def of(found: Bin) -> float | None:
            rate = found.rate(counter)
            return None if rate is None else factor * rate

        return values(hour, of)

    latency = {"p50": values(hour, lambda found: found.latency_ms(0.5))}
    latency["p99"] = values(hour, lambda found: found.latency_ms(0.99))
    letters = rate("dead_letters", 60)
    newest_letters = next((value for value in reversed(letters) if value is not None), None)
    lag = values(hour, lambda found: found.lag)
    checkpoints = values(hour, lambda found: found.checkpoint_ms)
    percentiles = f"{number(at('actions', 'latency_ms', 'p50'))} / {number(at('actions', 'latency_ms', 'p99'))}"
    lag_value = at("events", "lag")
    lag_now = ("unknown", "") if status and lag_value is None else (number(lag_value), " events")
    of_events, of_actions = {"events": rate("events_handled")}, {"actions": rate("actions")}
    return [
        Card(Sparkline("Events", "/s", of_events, marks), number(at("events", "handled_per_second")), "/s"),
        Card(Sparkline("Actions", "/s", of_actions, marks), number(at("actions", "per_second")), "/s"),
        Card(Sparkline("Latency, p50 and p99", " ms", latency, marks), percentiles, " ms"),
        Card(Sparkline("Lag", " events", {"lag": lag}, marks), *lag_now),
        Card(Sparkline("Dead letters", "/min", {"letters": letters}, marks), number(newest_letters), "/min"),
        Card(
            Sparkline("Checkpoints, duration", " ms", {"checkpoints": checkpoints}, marks),
            number(at("checkpoints", "last_ms")),
            " ms",
        ),
    ]


def with_notes(changes: Iterable[Change], sets: Iterable[RuleSet]) -> list[Change]:
    """The changes; those of a rule set with who published it and why, where that is known."""
    texts = {
        f"rule set {known.number} is live": f"rule set {known.number} is live{f', by {known.by}' if known.by else ''}"
        f"{f': {known.note}' if known.note else ''}"
        for known in sets
    }
    return [Change(change.at_ms, texts.get(change.text, change.text), change.is_bad) for change in changes]
