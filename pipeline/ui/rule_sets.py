"""The pages of rule sets: their history with what changed, and the forms that publish, roll back and set aside."""

from __future__ import annotations

import flask
from flask import Flask, request
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response

from pipeline.ui.guard import Guard
from pipeline.ui.job import JobError, RunningJob, job_errors
from pipeline.ui.rule_changes import KINDS, MAX_NOTE, RuleChanges, rule_diffs, rule_text

_NEW_RULE = """\
name: new_rule
version: 1
filter: event.event_name == "page_view"
actions:
  - type: debug
tests:
  - name: a page view fires
    events: [{event_name: page_view}]
    expect: [debug]
"""


class RuleSetPages:
    """The pages under ``/rule-sets``."""

    def __init__(self, job: RunningJob, guard: Guard) -> None:
        self._job = job
        self._guard = guard

    def add_to(self, app: Flask) -> None:
        """Add the pages' routes."""
        app.add_url_rule("/rule-sets", view_func=self.rule_sets, methods=["GET"])
        app.add_url_rule("/rule-sets/edit", view_func=self.edit_rule, methods=["GET"])
        app.add_url_rule("/rule-sets/change", view_func=self.change_rules, methods=["POST"])

    def rule_sets(self) -> str:
        """The sets that the topic keeps, the newest first, each with what it changed."""
        changes = self._job.rule_changes()
        if changes is None:
            return flask.render_template("rule_sets.html", rows=None, unreadable=())
        with job_errors():
            published = changes.read()
        befores = ((), *(rule_set.rules for rule_set in published.sets))
        rows = [
            (rule_set, None if number == 0 else list(rule_diffs(befores[number], rule_set.rules)))
            for number, rule_set in enumerate(published.sets)
        ]
        return flask.render_template("rule_sets.html", rows=rows[::-1], unreadable=published.unreadable)

    def edit_rule(self) -> str:
        """A rule as text, or a first text of a new one."""
        self._guard.check_signed_in()
        self._changes()
        name, text = request.args.get("rule"), _NEW_RULE
        if name is not None:
            rule_set = self._job.rule_set()
            rule = next((rule for rule in rule_set.rules if rule.name == name), None) if rule_set else None
            if rule is None:
                raise NotFound(f"There is no rule {name!r} in the live set.")
            text = rule_text(rule)
        return flask.render_template("rule_change.html", change=None, kind="edit", what=text, note="", most=MAX_NOTE)

    def change_rules(self) -> Response | str | tuple[str, int]:
        """Show what a change would do; the form of that page publishes it."""
        self._guard.check_signed_in()
        changes, form = self._changes(), request.form
        kind, what, note = form.get("kind", ""), form.get("what", ""), " ".join(form.get("note", "").split())
        if kind not in KINDS:
            raise BadRequest(f"kind is {kind!r}, allowed: {', '.join(KINDS)}")
        live = self._job.rule_set()
        with job_errors():
            change = changes.propose(kind, what, live)
        problems = list(change.problems)
        if "execute" in form:
            if not note or len(note) > MAX_NOTE:
                problems.append(f"the note has {len(note)} characters, allowed: 1 to {MAX_NOTE}, saying why")
            if form.get("highest") != str(change.highest):
                problems.append(f"set {change.highest} was published meanwhile: see below what changes against it")
            if not problems:
                with job_errors():
                    rule_set = changes.publish(change, note)
                flask.flash(f"published set {rule_set.number}", "good")
                return flask.redirect(flask.url_for("rule_sets"), 303)
        page = flask.render_template(
            "rule_change.html", change=change, kind=kind, what=what, note=note, problems=problems, most=MAX_NOTE
        )
        return page, 422 if problems else 200

    def _changes(self) -> RuleChanges:
        changes = self._job.rule_changes()
        if changes is None:
            raise JobError("rules are published on a rules topic: start the page with the job's --rules_topic")
        return changes
