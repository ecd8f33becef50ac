"""An HTTP receiver of webhooks for tests: records each webhook, answers with the configured status."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from standardwebhooks import Webhook

from pipeline.embedded.server import LocalServer, QuietHandler

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """The webhooks that came.

    Attributes:
        seen: id, path and body of each webhook, in the order of arrival.
        times: when each webhook came, in seconds since the epoch.
        bad: for each webhook with a bad signature what is wrong with it.
        answers: by path a function that returns the HTTP status; it may block.
    """

    url: str = ""
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    answers: dict[str, Callable[[], int]] = field(default_factory=dict)

    def ids(self, path: str) -> list[str]:
        return [webhook_id for webhook_id, at, _ in self.seen if at == path]

    def until(self, done: Callable[[], bool], deadline_s: float) -> None:
        """Wait until ``done`` holds. Fails after ``deadline_s`` with the number of webhooks."""
        give_up = time.monotonic() + deadline_s
        while not done():
            assert time.monotonic() < give_up, f"{len(self.seen)} webhooks, {len(set(self.seen))} different"
            time.sleep(0.05)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on 127.0.0.1 while the context is open."""
    receiver = Receiver()
    checker = Webhook(SECRET)

    class Handler(QuietHandler):
        def do_POST(self) -> None:  # noqa: N802 - the name that the server calls
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the sender was killed: this is no webhook
                self.close_connection = True
                return
            try:
                checker.verify(body, dict(self.headers))
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shall show it
                receiver.bad.append(repr(error))
            receiver.times.append(time.time())
            receiver.seen.append((str(self.headers["webhook-id"]), self.path, body))
            status = receiver.answers.get(self.path, lambda: 200)()
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with LocalServer("receiver", Handler) as server:
        receiver.url = server.url
        yield receiver
