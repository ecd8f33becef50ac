"""The pages of rules: the live set, and one rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import flask
import yaml
from flask import Flask
from werkzeug.exceptions import NotFound

from pipeline.job.decision_log import DecisionFilter
from pipeline.ui.job import JobError, RunningJob
from pipeline.ui.outcomes import Outcomes, outcomes_over_time
from pipeline.ui.watch import Watch
from transforms.domain.rules.model import Rule
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import Decision

_DECISIONS: Final = 20


class RulePages:
    """The pages under ``/rules``."""

    def __init__(self, job: RunningJob, watch: Watch) -> None:
        self._job = job
        self._watch = watch

    def add_to(self, app: Flask) -> None:
        """Add the pages' routes."""
        app.add_url_rule("/rules", view_func=self.rules, methods=["GET"])
        app.add_url_rule("/rules/<name>", view_func=self.rule, methods=["GET"])

    def rules(self) -> str:
        """The live rules with their matches."""
        status, trouble = self._watch.status, self._watch.trouble
        rule_set, problem = None, None
        try:
            rule_set = self._job.rule_set()
        except JobError as error:
            problem = str(error)
        rows = rule_rows(() if rule_set is None else rule_set.rules, status)
        return flask.render_template(
            "rules.html",
            rows=rows,
            highest=max((row["allowed_per_minute"] for row in rows), default=0) or 1,
            rule_set=rule_set,
            troubles=[text for text in (trouble, problem) if text],
        )

    def rule(self, name: str) -> str:
        """One rule, its source and its decisions."""
        rule_set = self._job.rule_set()
        rule = next((rule for rule in rule_set.rules if rule.name == name), None) if rule_set is not None else None
        row = next((row for row in rule_rows((), self._watch.status) if row["name"] == name), None)
        log = self._job.decisions(DecisionFilter())
        decisions = None if log is None else [decision for decision in log if decision.rule == name]
        if rule is None and row is None and not decisions:
            raise NotFound("No such rule is in the live set, nor was one seen.")
        return flask.render_template(
            "rule.html",
            name=name,
            row=row,
            document=None if rule is None else _document(rule),
            decisions=None if decisions is None else decisions[:_DECISIONS],
            outcomes_by_time=self._outcomes(decisions or (), log or (), rule_set),
            can_change=self._job.rule_changes() is not None,
        )

    def _outcomes(self, decisions: Sequence[Decision], log: Sequence[Decision], live: RuleSet | None) -> Outcomes:
        """The decisions of a rule over time, with the live set as a mark; ``log`` is the newest first."""
        now_ms = self._job.now_ms()
        marks = [(live.published_ms, f"set {live.number} was published")] if live is not None and live.number else []
        return outcomes_over_time(decisions, log[-1].time if log else now_ms, now_ms, marks)


def rule_rows(rules: tuple[Rule, ...], status: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A row for each rule of the set, then for each other rule that has metrics."""
    counts = {} if status is None else {row["name"]: row for row in status["rules"]["each"]}
    zeros = {"allowed_per_minute": 0, "fired_per_minute": 0, "allowed": 0, "fired": 0, "error": 0, "quarantined": 0}
    rows = [{"name": rule.name, "version": rule.version, **(counts.pop(rule.name, None) or zeros)} for rule in rules]
    return [*rows, *({"version": None, **row} for row in counts.values())]


def _document(rule: Rule) -> list[tuple[str, str]]:
    """Name and text of each of the rule's fields; what is not a string as YAML."""
    document = rule.model_dump(mode="json", exclude_defaults=True)
    return [
        (name, value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False, allow_unicode=True).strip())
        for name, value in document.items()
        if name not in ("name", "version")
    ]
