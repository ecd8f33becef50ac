"""Bounds the requests that wait for Kafka, so that a thread is left for those that do not: probes, signing in."""

from __future__ import annotations

import threading
from typing import Final

import flask
from flask import Flask, request
from werkzeug.exceptions import ServiceUnavailable

# Of the server's eight threads.
MOST: Final = 5
MOST_LOOK_UPS: Final = 2  # of users, whose job may take ten seconds to answer
_RETRY_AFTER_S: Final = 3


class Places:
    """Refuses requests that would be one too many, with 503; those that name no user's data are always served."""

    def __init__(self, always: tuple[str, ...]) -> None:
        self._always = always
        self._pages = threading.BoundedSemaphore(MOST)
        self._look_ups = threading.BoundedSemaphore(MOST_LOOK_UPS)

    def bound(self, app: Flask) -> None:
        """Bound the requests to the app."""
        app.before_request(self._enter)
        app.teardown_request(self._leave)

    def _enter(self) -> None:
        if request.endpoint is None or request.endpoint in self._always:
            return
        is_look_up = request.endpoint == "user" and request.args.get("user_id")
        flask.g.places = []
        for places in [self._pages, *([self._look_ups] if is_look_up else [])]:
            if not places.acquire(blocking=False):
                text = "Too many requests wait for Kafka or for the job. Try again in some seconds."
                raise ServiceUnavailable(text, retry_after=_RETRY_AFTER_S)
            flask.g.places.append(places)

    def _leave(self, _: BaseException | None) -> None:
        for places in flask.g.pop("places", ()):
            places.release()
