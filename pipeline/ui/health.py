"""The verdict about the job for pages, and ``GET /health`` for probes."""

from __future__ import annotations

import flask
from flask import Flask, Response

from pipeline.job.health import DOWN
from pipeline.ui.watch import Watch


def add_health(app: Flask, watch: Watch) -> None:
    """Give every template the ``verdict``, which ``verdict.html`` shows, and serve ``/health``."""
    app.context_processor(lambda: {"verdict": watch.verdict})
    app.add_url_rule("/health", "health", lambda: _health(watch), methods=["GET"])


def _health(watch: Watch) -> Response:
    """The verdict without its detail: anyone may read this, and a detail may quote events."""
    verdict, seen_s = watch.verdict, watch.seen_s
    response = flask.jsonify(
        verdict=verdict.state,
        cause=verdict.cause or None,
        section=verdict.section or None,
        seen_seconds_ago=None if seen_s is None else round(seen_s, 1),
    )
    response.status_code = 503 if verdict.state == DOWN else 200
    return response
