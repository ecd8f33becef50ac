"""The pages of the web page as a Flask app. The templates escape everything that they show."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import flask
import yaml
from flask import Flask, request
from werkzeug.exceptions import HTTPException, NotFound, SecurityError
from werkzeug.wrappers import Response

from pipeline.console import lines_of, one_line
from pipeline.job.dead_letter_view import letter_document, letter_fields
from pipeline.job.decision_log import DecisionFilter, delivery_summary
from pipeline.job.redrive_view import group_line, result_lines, sample_line
from pipeline.job.redriving import SkippedError, route
from pipeline.job.stored_letters import StoredLetter, read_place
from pipeline.job.stream_time import time_lines
from pipeline.job.user_inspection import headline, is_known, moment, sections
from pipeline.ui.guard import Guard, form_secret
from pipeline.ui.health import add_health
from pipeline.ui.job import DECISIONS_BACK, LETTERS_BACK, JobError, RunningJob
from pipeline.ui.watch import Watch
from transforms.domain.base.secret_references import SecretError
from transforms.domain.rules.model import Rule

_MAX_ROWS: Final = 200
_HISTORY_ROWS: Final = 30
_REFRESH_S: Final = 10
_MAX_NOTICE: Final = 600  # characters: notices travel in a cookie
# Decisions that the pages show in green and in red.
_GOOD: Final = ("fired", "released", "delivered", "timed_out", "followed")
_BAD: Final = ("error", "undelivered", "refused", "dropped", "set_aside")


def build(job: RunningJob, watch: Watch, guard: Guard) -> Flask:
    """The Flask app, protected by ``guard``."""
    app = Flask(__name__)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters |= {"line": one_line, "lines": _lines, "moment": moment, "tone": _tone}
    app.jinja_env.filters |= {"group_line": group_line, "sample_line": sample_line}
    guard.protect(app)
    pages = _Pages(job, watch, guard)
    app.context_processor(pages.context)
    add_health(app, watch)
    app.register_error_handler(HTTPException, pages.error)
    app.register_error_handler(JobError, pages.trouble)
    app.add_url_rule("/", view_func=pages.rules, methods=["GET"])
    app.add_url_rule("/rules/<name>", view_func=pages.rule, methods=["GET"])
    app.add_url_rule("/decisions", view_func=pages.decisions, methods=["GET"])
    app.add_url_rule("/dead-letters", view_func=pages.letters, methods=["GET"])
    app.add_url_rule("/dead-letters/<int:partition>/<int:offset>", view_func=pages.letter, methods=["GET"])
    app.add_url_rule("/dead-letters/redrive", view_func=pages.redrive, methods=["POST"])
    app.add_url_rule("/user", view_func=pages.user, methods=["GET"])
    app.add_url_rule("/sign-in", view_func=pages.sign_in, methods=["GET", "POST"])
    app.add_url_rule("/sign-out", view_func=pages.sign_out, methods=["POST"])
    return app


class _Pages:
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
            "now_ms": round(time.time() * 1000),
        }

    # Rules

    def rules(self) -> str:
        status, trouble = self._watch.status, self._watch.trouble
        rule_set, problem = None, None
        try:
            rule_set = self._job.rule_set()
        except JobError as error:
            problem = str(error)
        rows = _rule_rows(() if rule_set is None else rule_set.rules, status)
        highest = max((row["allowed_per_minute"] for row in rows), default=0) or 1
        return flask.render_template(
            "rules.html",
            rows=rows,
            highest=highest,
            rule_set=rule_set,
            troubles=[text for text in (trouble, problem) if text],
            time_lines=[] if status is None else time_lines(status["time"]),
            refresh_s=_REFRESH_S,
        )

    def rule(self, name: str) -> str:
        rule_set = self._job.rule_set()
        rule = next((rule for rule in rule_set.rules if rule.name == name), None) if rule_set is not None else None
        row = next((row for row in _rule_rows((), self._watch.status) if row["name"] == name), None)
        decisions = self._job.decisions(DecisionFilter(rule=name), 20)
        if rule is None and row is None and not decisions:
            raise NotFound("No such rule is in the live set, nor was one seen.")
        return flask.render_template(
            "rule.html", name=name, row=row, document=None if rule is None else _document(rule), decisions=decisions
        )

    # Decisions

    def decisions(self) -> str:
        selected = DecisionFilter(*(request.args.get(name, "").strip() or None for name in ("user", "rule", "action")))
        decisions = self._job.decisions(selected, _MAX_ROWS)
        return flask.render_template(
            "decisions.html", decisions=decisions, selected=selected, most=_MAX_ROWS, back=DECISIONS_BACK
        )

    # Dead letters

    def letters(self) -> str:
        letters = self._job.letters(_MAX_ROWS)
        return flask.render_template(
            "letters.html",
            letters=[(stored, self._why_not(stored), sent_ms, self._origin(stored)) for stored, sent_ms in letters],
            most=_MAX_ROWS,
            back=LETTERS_BACK,
        )

    def letter(self, partition: int, offset: int) -> str:
        stored = self._job.letter(partition, offset)
        if stored is None:
            raise NotFound("There is no such dead letter.")
        return flask.render_template(
            "letter.html",
            letter=stored,
            fields=list(letter_fields("", letter_document(stored, self._job.redrive_settings.signer))),
            why_not=self._why_not(stored),
            origin=self._origin(stored),
        )

    def _why_not(self, stored: StoredLetter) -> str | None:
        """Why a letter cannot be sent again, as far as the letter itself shows it."""
        letter = stored.letter
        try:
            route(letter, self._job.redrive_settings, letter.partition + 1)
        except SkippedError as error:
            return str(error)
        return None

    def _origin(self, stored: StoredLetter) -> str:
        return self._job.redrive_settings.signer.origin(stored.letter)

    def redrive(self) -> Response | str:
        """Show what would be sent where; the form of that page sends it."""
        self._guard.check_signed_in()
        chosen = set(filter(None, map(read_place, request.form.getlist("place"))))
        places = sorted(chosen)[:_MAX_ROWS]
        flags = {name: name in request.form for name in ("accept_unsigned", "again")}
        if not places:
            flask.flash("No letter was chosen.", "good")
            return flask.redirect(flask.url_for("letters"), 303)
        plan, result = self._job.redrive(places, "execute" in request.form, **flags)
        if result is None:
            return flask.render_template("redrive.html", plan=plan, places=[f"{p}/{o}" for p, o in places], flags=flags)
        skipped = [f"skipped: {count:,}: {cause}" for cause, count in plan.skipped.most_common(3)]
        stopped = [] if result.stopped is None else [f"stopped: {result.stopped}"]
        is_bad = bool(result.failed or result.stopped)
        flask.flash("; ".join([*result_lines(result), *skipped, *stopped])[:_MAX_NOTICE], "bad" if is_bad else "good")
        return flask.redirect(flask.url_for("letters"), 303)

    # One user

    def user(self) -> str:
        user_id = request.args.get("user_id", "")
        if not user_id:
            return flask.render_template("user.html", user_id="", state=None)
        state, trouble, now_ms = None, None, round(time.time() * 1000)
        try:
            state = self._job.inspect(user_id)
        except JobError as error:
            trouble = str(error)
        return flask.render_template(
            "user.html",
            user_id=user_id,
            state=state,
            known=state is not None and is_known(state),
            trouble=trouble,
            headline=[] if state is None else headline(state, now_ms),
            sections=[] if state is None else sections(state, now_ms, _HISTORY_ROWS),
            decisions=self._job.decisions(DecisionFilter(user=user_id), 30),
        )

    # Signing in

    def sign_in(self) -> str | Response | tuple[str, int]:
        if not self._guard.has_token:
            raise NotFound("This page is read-only: it was started without --token.")
        if request.method == "GET":
            return flask.render_template("sign_in.html")
        try:
            is_in = self._guard.sign_in(request.form.get("token", "").strip())
        except SecretError as error:
            return flask.render_template("sign_in.html", trouble=str(error)), 503
        if not is_in:
            return flask.render_template("sign_in.html", trouble="This is not the token."), 403
        return flask.redirect(flask.url_for("rules"), 303)

    def sign_out(self) -> Response:
        self._guard.sign_out()
        return flask.redirect(flask.url_for("rules"), 303)

    # Errors

    def error(self, error: HTTPException) -> Response | tuple[str, int]:
        if isinstance(error, SecurityError):  # the request is for a host name that is not this page's
            return flask.Response(f"{error.description}\n", 400, mimetype="text/plain")
        if error.code is None or error.code < 400:
            return error.get_response()
        return flask.render_template("error.html", title=error.name, text=error.description), error.code

    def trouble(self, error: JobError) -> tuple[str, int]:
        return flask.render_template("error.html", title="That did not work", text=str(error)), 502


def _rule_rows(rules: tuple[Rule, ...], status: Mapping[str, Any] | None) -> list[dict[str, Any]]:
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


def _lines(text: object) -> str:
    """A foreign text with its line breaks, each line as of ``one_line``."""
    return lines_of(str(text))


def _tone(decision: str) -> str:
    return "good" if decision in _GOOD else "bad" if decision in _BAD else "plain"
