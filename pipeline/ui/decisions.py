"""The page of recent decisions, with filters."""

from __future__ import annotations

from collections.abc import Iterable

import flask
from flask import Flask

from pipeline.job.decision_log import DecisionFilter
from pipeline.ui.job import DECISIONS_BACK, RunningJob
from pipeline.ui.paging import choices, chosen, nothing_found, rows_page, text_argument
from transforms.domain.shard.decisions import KINDS


class DecisionPages:
    """The page ``/decisions``."""

    def __init__(self, job: RunningJob) -> None:
        self._job = job

    def add_to(self, app: Flask) -> None:
        """Add the page's route."""
        app.add_url_rule("/decisions", view_func=self.decisions, methods=["GET"])

    def decisions(self) -> str:
        """The newest decisions that the filters select."""
        outcome = chosen("outcome", KINDS)
        selected = DecisionFilter(text_argument("user"), text_argument("rule"), text_argument("action"))
        read = self._job.decisions(DecisionFilter())
        found = [decision for decision in read or () if selected.matches(decision)]
        shown = [decision for decision in found if outcome in (None, decision.decision)]
        values: dict[str, tuple[str | None, Iterable[str | None]]] = {
            "user": (selected.user, (decision.user_id for decision in read or ())),
            "rule": (selected.rule, (decision.rule for decision in read or ())),
            "action": (selected.action, ()),
            "outcome": (outcome, ()),
        }
        return flask.render_template(
            "decisions.html",
            page_of=None if read is None else rows_page(shown),
            outcomes=choices("outcome", (decision.decision for decision in found), len(KINDS)),
            rules=choices("rule", (decision.rule for decision in read or ())),
            selected=selected,
            outcome=outcome,
            nothing=nothing_found("decision", len(read or ()), values),
            back=DECISIONS_BACK,
        )
