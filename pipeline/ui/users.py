"""The page of one user: the state, and the history as a timeline with the decisions on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import flask
from flask import Flask, request

from pipeline.job.decision_log import DecisionFilter
from pipeline.job.user_inspection import headline, history_row, is_known, sections
from pipeline.ui.guard import comes_from_elsewhere
from pipeline.ui.job import JobError, RunningJob
from pipeline.ui.paging import rows_page
from transforms.domain.shard.decisions import Decision

_DECISIONS: Final = 500


@dataclass(slots=True)
class Moment:
    """An event of a timeline with its decisions, the oldest first; ``name`` is None if only the log knows it."""

    at_ms: int
    event_id: str
    name: str | None
    fields: str = ""
    decisions: list[Decision] = field(default_factory=list)


class UserPages:
    """The page ``/user``."""

    def __init__(self, job: RunningJob) -> None:
        self._job = job

    def add_to(self, app: Flask) -> None:
        """Add the page's route."""
        app.add_url_rule("/user", view_func=self.user, methods=["GET"])

    def user(self) -> str:
        """The state of the user that the request names."""
        user_id = request.args.get("user_id", "")
        if not user_id:
            return flask.render_template("user.html", user_id="", state=None)
        state, trouble, now_ms = None, None, self._job.now_ms()
        # Asking writes a control record, which another site's link shall not.
        asks = not comes_from_elsewhere()
        try:
            state = self._job.inspect(user_id) if asks else None
        except JobError as error:
            trouble = str(error)
        decisions = self._job.decisions(DecisionFilter(user=user_id), _DECISIONS)
        # The history is the timeline.
        parts = [] if state is None else sections({**state, "eventHistory": []}, now_ms, 0)
        return flask.render_template(
            "user.html",
            user_id=user_id,
            state=state,
            asked=asks,
            known=state is not None and is_known(state),
            trouble=trouble,
            headline=[] if state is None else headline(state, now_ms),
            sections=parts,
            has_log=decisions is not None,
            timeline=rows_page(timeline((state or {}).get("eventHistory") or (), decisions or ())),
        )


def timeline(history: Sequence[Mapping[str, Any]], decisions: Iterable[Decision]) -> list[Moment]:
    """The events of a history, the newest first, each with its decisions; events that only the log has in between.

    Args:
        history: rows as of ``inspect``.
        decisions: those of the user, the newest first.
    """
    moments: dict[str, Moment] = {}
    for row in history:
        _, name, event_id, fields = history_row(row)
        moments[event_id] = Moment(row["timestamp"], event_id, name, fields)
    for decision in reversed(list(decisions)):
        at_ms = decision.time if decision.event_time is None else decision.event_time
        found = moments.setdefault(decision.event_id, Moment(at_ms, decision.event_id, None))
        found.name = found.name or decision.event_name
        found.decisions.append(decision)
    return sorted(moments.values(), key=lambda found: found.at_ms, reverse=True)
