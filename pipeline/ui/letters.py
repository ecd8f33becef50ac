"""The pages of dead letters: counts, filters, one letter, and the redrive of those that were chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import flask
from flask import Flask, request
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response

from pipeline.errors import OptionError
from pipeline.job.dead_letter_view import letter_document, letter_fields
from pipeline.job.redrive_view import result_lines
from pipeline.job.redriving import SkippedError, route
from pipeline.job.stored_letters import LetterFilter, StoredLetter, read_place
from pipeline.job.user_inspection import moment
from pipeline.timestamps import read_time
from pipeline.ui.guard import Guard
from pipeline.ui.job import LETTERS_BACK, RunningJob
from pipeline.ui.paging import choices, chosen, nothing_found, rows_page, text_argument
from transforms.domain.events.dead_letter import STAGES

_MAX_ROWS: Final = 200
_MAX_NOTICE: Final = 600  # characters: notices travel in a cookie
# Fields of a letter that are times, ms since the epoch.
_TIMES: Final = ("time", "record.timestamp", "action.decided_ms")


class LetterPages:
    """The pages under ``/dead-letters``."""

    def __init__(self, job: RunningJob, guard: Guard) -> None:
        self._job = job
        self._guard = guard

    def add_to(self, app: Flask) -> None:
        """Add the pages' routes."""
        app.add_url_rule("/dead-letters", view_func=self.letters, methods=["GET"])
        app.add_url_rule("/dead-letters/<int:partition>/<int:offset>", view_func=self.letter, methods=["GET"])
        app.add_url_rule("/dead-letters/redrive", view_func=self.redrive, methods=["POST"])

    def letters(self) -> str:
        """The newest letters that the filters select, and how many there are of each reason, rule and destination."""
        reason, rule, destination = chosen("reason", STAGES), text_argument("rule"), text_argument("destination")
        since, until = text_argument("since"), text_argument("until")
        selected = LetterFilter(
            reasons=(reason,) if reason else (),
            rules=(rule,) if rule else (),
            destinations=(destination,) if destination else (),
            since_ms=_time("since", since),
            until_ms=_time("until", until),
        )
        read = self._job.letters()
        found = [(stored, sent_ms) for stored, sent_ms in read if selected.matches(stored)]
        values = {
            "reason": (reason, ()),
            "rule": (rule, (stored.letter.rule for stored, _ in read)),
            "destination": (destination, (stored.destination for stored, _ in read)),
            "since": (since, ()),
            "until": (until, ()),
        }
        page = rows_page(found)
        return flask.render_template(
            "letters.html",
            letters=[(stored, self._why_not(stored), sent, self._origin(stored)) for stored, sent in page.rows],
            page_of=page,
            read=len(read),
            reasons=choices("reason", (stored.letter.reason for stored, _ in read), len(STAGES)),
            rules=choices("rule", (stored.letter.rule for stored, _ in read)),
            destinations=choices("destination", (stored.destination for stored, _ in read)),
            selected={"reason": reason, "rule": rule, "destination": destination, "since": since, "until": until},
            nothing=nothing_found("letter", len(read), values),
            back=LETTERS_BACK,
        )

    def letter(self, partition: int, offset: int) -> str:
        """Everything of one letter."""
        stored = self._job.letter(partition, offset)
        if stored is None:
            raise NotFound("There is no such dead letter.")
        return flask.render_template(
            "letter.html",
            letter=stored,
            fields=list(self._fields(stored, self._job.now_ms())),
            why_not=self._why_not(stored),
            origin=self._origin(stored),
        )

    def _fields(self, stored: StoredLetter, now_ms: int) -> Iterator[tuple[str, Any]]:
        """Name and value of each field; times as times, bytes as text if they are text."""
        document = letter_document(stored, self._job.redrive_settings.signer)
        document["record"]["value"] = _text_of(stored.letter.value, document["record"]["value"])
        if stored.letter.action is not None:
            document["action"]["body"] = _text_of(stored.letter.action.body, document["action"]["body"])
        for name, value in letter_fields("", document):
            yield name, moment(value, now_ms) if name in _TIMES and value >= 0 else value

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
        given = set(filter(None, map(read_place, request.form.getlist("place"))))
        places = sorted(given)[:_MAX_ROWS]
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


def _time(name: str, text: str | None) -> int | None:
    try:
        return read_time(name, text)
    except OptionError as error:
        raise BadRequest(str(error).removeprefix("--")) from None


def _text_of(value: bytes | None, otherwise: Any) -> Any:
    try:
        return otherwise if value is None else value.decode()
    except UnicodeDecodeError:
        return otherwise
