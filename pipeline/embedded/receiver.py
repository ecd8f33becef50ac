"""A receiver of webhooks for the demo, which accepts every request."""

from __future__ import annotations

from pipeline.embedded.server import LocalServer, QuietHandler


class Receiver(LocalServer):
    """Answers every POST with 204 on 127.0.0.1 while the context is open. It does not check signatures."""

    def __init__(self) -> None:
        super().__init__("embedded-receiver", _Handler)


class _Handler(QuietHandler):
    def do_POST(self) -> None:  # noqa: N802 - a name of http.server
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
