"""A small user API for the embedded default and the demo: made-up users, the same ones every time."""

from __future__ import annotations

import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final

import orjson

from pipeline.embedded.stream import FIRST_EVENT_MS

_COUNTRIES: Final = (("US", "New York", "en"), ("DE", "Berlin", "de"), ("TR", "Istanbul", "tr"), ("FR", "Lyon", "fr"))
_TIMEZONES: Final = {"US": "America/New_York", "DE": "Europe/Berlin", "TR": "Europe/Istanbul", "FR": "Europe/Paris"}


class UserApi:
    """Serves ``/users/{id}/profile``, ``/visit`` and ``/history`` on 127.0.0.1 while the context is open.

    One user in ten is unknown (404). ``delay_s`` is how long each answer takes.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        server = _Server(("127.0.0.1", 0), _handler(delay_s))
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.05,), daemon=True, name="embedded-user-api"
        )
        self.url = f"http://127.0.0.1:{server.server_address[1]}"

    def __enter__(self) -> UserApi:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away while its connection is idle is how every job ends.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def profile_of(user_id: str) -> dict[str, Any] | None:
    """What the API knows of a user; None for an unknown one."""
    seed = zlib.crc32(user_id.encode())
    if seed % 10 == 0:
        return None
    country, city, language = _COUNTRIES[seed // 10 % len(_COUNTRIES)]
    return {
        "user_id": user_id,
        "country": country,
        "city": city,
        "language": language,
        "timezone": _TIMEZONES[country],
        "segment": ("new", "regular", "vip")[seed // 100 % 3],
    }


def _answer(user_id: str, what: str) -> Any:
    if profile_of(user_id) is None:
        return None
    if what == "profile":
        return profile_of(user_id)
    if what == "visit":
        return {
            "visit_id": f"visit_{user_id}",
            "start_time": FIRST_EVENT_MS - 60_000,
            "page_count": 2,
            "is_first_visit": False,
        }
    if what == "history":
        return [
            {"event_id": f"{user_id}_past_{age}", "event_name": "page_view", "timestamp": FIRST_EVENT_MS - age * 60_000}
            for age in (3, 2, 1)
        ]
    return None


def _handler(delay_s: float) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            time.sleep(delay_s)
            parts = self.path.strip("/").split("/")
            answer = _answer(parts[1], parts[2]) if len(parts) == 3 and parts[0] == "users" else None
            body = orjson.dumps(answer if answer is not None else {"error": "not found"})
            self.send_response(200 if answer is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
