"""An HTTP server in this process, the base of the embedded user API, and the demo's receiver of webhooks."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that keeps connections alive and logs nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


class LocalServer:
    """Serves ``handler``, on a free port of 127.0.0.1 by default, while the context is open, at ``url``."""

    def __init__(
        self, name: str, handler: Callable[..., BaseHTTPRequestHandler], address: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        server = _Server(address, handler)
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True, name=name)
        self.url = f"http://{address[0]}:{server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # workers open all their connections at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        # At the end of every job, clients close idle connections.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Receiver(LocalServer):
    """Answers every POST with 204 on 127.0.0.1 while the context is open. It does not check signatures."""

    def __init__(self) -> None:
        super().__init__("embedded-receiver", _Handler)


class _Handler(QuietHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()


class CountingReceiver(LocalServer):
    """A ``Receiver`` that knows which webhooks came, by their ids."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: Counter[str] = Counter()
        super().__init__("embedded-receiver", partial(_CountingHandler, self._note))

    def _note(self, webhook_id: str) -> None:
        with self._lock:
            self._times[webhook_id] += 1

    def counts(self) -> tuple[int, int]:
        """How many webhooks came, and how many requests repeated one that had come before."""
        with self._lock:
            return len(self._times), self._times.total() - len(self._times)


class _CountingHandler(_Handler):
    def __init__(self, note: Callable[[str], None], *args: Any) -> None:
        self._note = note
        super().__init__(*args)  # handles the connection to its end

    def do_POST(self) -> None:
        self._note(self.headers["webhook-id"])
        super().do_POST()
