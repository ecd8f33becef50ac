"""The web page as a Flask app: all its pages, signing in, errors. The templates escape everything that they show."""

from __future__ import annotations

from typing import Any, Final

import flask
from flask import Flask, request
from werkzeug.exceptions import HTTPException, NotFound, SecurityError, ServiceUnavailable, TooManyRequests
from werkzeug.wrappers import Response

from pipeline.console import lines_of, one_line
from pipeline.job.decision_log import delivery_summary
from pipeline.job.redrive_view import group_line, sample_line
from pipeline.job.status import FAILURE_COUNTERS
from pipeline.job.user_inspection import distance, moment
from pipeline.timestamps import shown_time
from pipeline.ui.decisions import DecisionPages
from pipeline.ui.guard import OPEN, Guard, form_secret
from pipeline.ui.health import add_health
from pipeline.ui.job import JobError, RunningJob
from pipeline.ui.letters import LetterPages
from pipeline.ui.overview import OverviewPages
from pipeline.ui.places import Places
from pipeline.ui.rule_sets import RuleSetPages
from pipeline.ui.rules import RulePages
from pipeline.ui.sparkline import number
from pipeline.ui.users import UserPages
from pipeline.ui.watch import Watch
from transforms.domain.base.secret_references import SecretError

# Errors that no page of ours has raised.
_WHAT_TO_DO: Final = {
    404: "There is no page at this address: choose one above.",
    405: "This address takes a form: go back to the page with its button.",
    413: "The form is larger than 64 KB. `event-trigger rules publish` publishes larger rules, and "
    "`event-trigger dead-letters redrive` sends any number of letters.",
}
_DAY_MS: Final = 86_400_000
# Decisions that the pages show in green and in red.
_GOOD: Final = ("fired", "released", "delivered", "timed_out", "followed")
_BAD: Final = ("error", "undelivered", "refused", "dropped", "set_aside")


def build(job: RunningJob, watch: Watch, guard: Guard) -> Flask:
    """The Flask app, protected by ``guard``."""
    app = Flask(__name__)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters |= {"line": one_line, "lines": _lines, "moment": moment, "tone": _tone, "number": number}
    app.jinja_env.filters |= {"group_line": group_line, "sample_line": sample_line, "at": shown_time, "hour": _hour}
    app.jinja_env.filters["short"] = _short
    guard.protect(app)
    Places(OPEN).bound(app)
    frame = _Frame(job, watch, guard)
    app.context_processor(frame.context)
    add_health(app, watch)
    app.register_error_handler(HTTPException, frame.error)
    app.register_error_handler(JobError, frame.trouble)
    OverviewPages(job, watch).add_to(app)
    RulePages(job, watch).add_to(app)
    RuleSetPages(job, guard).add_to(app)
    DecisionPages(job).add_to(app)
    LetterPages(job, guard).add_to(app)
    UserPages(job).add_to(app)
    app.add_url_rule("/sign-in", view_func=frame.sign_in, methods=["GET", "POST"])
    app.add_url_rule("/sign-out", view_func=frame.sign_out, methods=["POST"])
    return app


class _Frame:
    """What all pages share."""

    def __init__(self, job: RunningJob, watch: Watch, guard: Guard) -> None:
        self._job = job
        self._watch = watch
        self._guard = guard

    def context(self) -> dict[str, Any]:
        """The variables of every template."""
        return {
            "job_name": self._job.name,
            "status": self._watch.status,
            "signed_in": self._guard.is_signed_in(),
            "has_token": self._guard.has_token,
            "form_secret": form_secret,
            "delivery_summary": delivery_summary,
            "outcomes": ("delivered", *FAILURE_COUNTERS),
            "now_ms": self._job.now_ms(),
        }

    # Signing in

    def sign_in(self) -> str | Response | tuple[str, int]:
        if not self._guard.has_token:
            raise NotFound("This page is read-only: it was started without --token.")
        if request.method != "POST":  # HEAD comes without the form's secret
            return flask.render_template("sign_in.html")
        try:
            is_in = self._guard.sign_in(request.form.get("token", "").strip())
        except SecretError as error:
            return flask.render_template("sign_in.html", trouble=str(error)), 503
        if not is_in:
            return flask.render_template("sign_in.html", trouble="This is not the token."), 403
        return flask.redirect(flask.url_for("overview"), 303)

    def sign_out(self) -> Response:
        self._guard.sign_out()
        return flask.redirect(flask.url_for("overview"), 303)

    # Errors

    def error(self, error: HTTPException) -> Response:
        if isinstance(error, SecurityError):  # the request is for a host name that is not this page's
            return flask.Response(f"{error.description}\n", 400, mimetype="text/plain")
        if error.code is None or error.code < 400:
            return error.get_response()
        is_own = error.description != type(error).description
        text = error.description if is_own else _WHAT_TO_DO.get(error.code, error.description)
        page = flask.make_response(flask.render_template("error.html", title=error.name, text=text), error.code)
        if isinstance(error, TooManyRequests | ServiceUnavailable) and error.retry_after is not None:
            page.headers["Retry-After"] = str(error.retry_after)
        return page

    def trouble(self, error: JobError) -> tuple[str, int]:
        return flask.render_template("error.html", title="That did not work", text=str(error)), 502


def _lines(text: object) -> str:
    """A foreign text with its line breaks, each line as of ``one_line``."""
    return lines_of(str(text))


def _hour(at_ms: int) -> str:
    """Hour and minute, UTC."""
    return shown_time(at_ms)[11:16]


def _short(at_ms: int, now_ms: int) -> str:
    """How far a time is from now, after hour, minute and second (UTC), with the date if it is a day away."""
    try:
        shown = shown_time(at_ms)
    except (OverflowError, ValueError):  # from a foreign clock
        return moment(at_ms, now_ms)
    is_near = abs(now_ms - at_ms) < _DAY_MS
    return f"{shown[11:19] if is_near else shown[:19].replace('T', ' ')}, {distance(at_ms, now_ms)}"


def _tone(decision: str) -> str:
    return "good" if decision in _GOOD else "bad" if decision in _BAD else "plain"
