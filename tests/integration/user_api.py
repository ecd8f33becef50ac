"""A small HTTP user API for tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.embedded.server import LocalServer, QuietHandler
from tests.oracle import UNAVAILABLE


class Gate:
    """Holds the calls for some users until it is opened.

    Attributes:
        held: users whose calls wait; may change at any time.
        calls: all calls so far, as ``user/resource``.
        passed: the number of calls that waited and were answered.
        status: the HTTP status of every answer, with an empty body; None for the real answers.
        delay_s: how late every answer is.
    """

    def __init__(self, held: Iterable[str] = ()) -> None:
        self.held = set(held)
        self.calls: list[str] = []
        self.passed = 0
        self.status: int | None = None
        self.delay_s = 0.0
        self._room = 0.0
        self._changed = threading.Condition()

    def open(self, calls: float = float("inf")) -> None:
        """Release the next ``calls`` calls that wait."""
        with self._changed:
            self._room += calls
            self._changed.notify_all()

    def enter(self, user: str, resource: str) -> None:
        """Record a call. Returns when it may be answered."""
        with self._changed:
            self.calls.append(f"{user}/{resource}")
            if user in self.held:
                self._changed.wait_for(lambda: self._room > 0)
                self._room -= 1
                self.passed += 1


@contextmanager
def serve_users(
    known: Mapping[str, Any], gate: Gate | None = None, address: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[str]:
    """Serve ``profile``, ``visit`` and ``history`` of users as ``builders.user_api_of`` makes them. Yields its URL.

    A call gets the answer that was right when it came. Calls for users that are ``UNAVAILABLE`` get a 403, which is
    never tried again. The gate opens when the context ends.
    """
    at_gate = gate or Gate()

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that the server calls
            _, _, user, resource = self.path.split("/")
            answers = known.get(user, {})
            status, body = 403, b""
            if answers != UNAVAILABLE:
                answer = answers.get(resource)
                status, body = 404 if answer is None else 200, json.dumps(answer).encode()
            at_gate.enter(user, resource)
            time.sleep(at_gate.delay_s)
            if at_gate.status is not None:
                status, body = at_gate.status, b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with LocalServer("user API", Handler, address) as server:
        try:
            yield server.url
        finally:
            at_gate.open()
