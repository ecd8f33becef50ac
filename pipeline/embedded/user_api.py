"""A small user API for the embedded default and the demo, with the same made-up users in each run."""

from __future__ import annotations

import time
import zlib
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

import orjson

from pipeline.embedded.server import LocalServer, QuietHandler
from pipeline.embedded.stream import FIRST_EVENT_MS

_COUNTRIES: Final = (("US", "New York", "en"), ("DE", "Berlin", "de"), ("TR", "Istanbul", "tr"), ("FR", "Lyon", "fr"))
_TIMEZONES: Final = {"US": "America/New_York", "DE": "Europe/Berlin", "TR": "Europe/Istanbul", "FR": "Europe/Paris"}


class UserApi(LocalServer):
    """Serves ``/users/{id}/profile``, ``/visit`` and ``/history`` on 127.0.0.1 while the context is open.

    One user in ten is unknown (404). Each answer takes ``delay_s`` seconds.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__("embedded-user-api", _handler(delay_s))


def profile_of(user_id: str) -> dict[str, Any] | None:
    """The profile of a user; None for an unknown user."""
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


def _answer(user_id: str, resource: str) -> Any:
    profile = profile_of(user_id)
    if profile is None:
        return None
    visit = {
        "visit_id": f"visit_{user_id}",
        "start_time": FIRST_EVENT_MS - 60_000,
        "page_count": 2,
        "is_first_visit": False,
    }
    history = [
        {"event_id": f"{user_id}_past_{age}", "event_name": "page_view", "timestamp": FIRST_EVENT_MS - age * 60_000}
        for age in (3, 2, 1)
    ]
    return {"profile": profile, "visit": visit, "history": history}.get(resource)


def _handler(delay_s: float) -> type[BaseHTTPRequestHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - a name of http.server
            time.sleep(delay_s)
            parts = self.path.strip("/").split("/")
            answer = _answer(parts[1], parts[2]) if len(parts) == 3 and parts[0] == "users" else None
            body = orjson.dumps(answer if answer is not None else {"error": "not found"})
            self.send_response(200 if answer is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
