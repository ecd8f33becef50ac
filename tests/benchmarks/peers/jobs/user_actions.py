"""What every peer's program does with an event; only where it keeps a user between two events is the framework's.

The same work as our pipeline's, a little less in the peers' favour: the filter is Python, events are not validated,
duplicates are not looked for, and the history is in the order of arrival. Stored parts stay JSON: they are read only
when a filter or an action asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import orjson
import requests
from requests.adapters import HTTPAdapter

HISTORY: Final = 100
TTL_S: Final = 600


@dataclass
class Fetched:
    """What the user API knows: the profile and the rows of the history as JSON, oldest first."""

    profile: str
    visit: dict[str, Any]
    rows: list[str]


class UserApi:
    """Three calls a user, side by side, on kept connections."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=3, max_retries=3))
        self._threads = ThreadPoolExecutor(3)

    def fetch(self, user_id: str) -> Fetched:
        """Profile, visit and history of a user."""
        profile, visit, history = self._threads.map(self._get, [user_id] * 3, ("profile", "visit", "history"))
        rows = [orjson.dumps(row).decode() for row in orjson.loads(history)[-HISTORY:]]
        return Fetched(profile.decode(), orjson.loads(visit), rows)

    def _get(self, user_id: str, what: str) -> bytes:
        answer = self._session.get(f"{self._base_url}/users/{user_id}/{what}", timeout=2)
        answer.raise_for_status()
        return answer.content


def row_of(event: dict[str, Any]) -> str:
    """The event as a row of the history."""
    row = {"event_id": event["event_id"], "event_name": event["event_name"], "timestamp": event["timestamp"]}
    return orjson.dumps(row).decode()


def advance_visit(visit: dict[str, Any], event: dict[str, Any]) -> None:
    """Count the event in the user's visit, or start another."""
    if event["is_first_in_visit"]:
        visit |= {
            "visit_id": event["event_id"], "start_time": event["timestamp"], "page_count": 0,
            "is_first_visit": event["is_first_event"],
        }  # fmt: skip
    if event["event_type"] == "pageview":
        visit["page_count"] += 1


def allows(event: dict[str, Any], profile: str) -> bool:
    """The rule's filter."""
    return bool(event["triggerable"]) and orjson.loads(profile).get("country") == "US"


def action(event: dict[str, Any], profile: str, visit: dict[str, Any], rows: Iterable[str]) -> bytes:
    """The enriched event. ``rows`` is the history before the event."""
    return orjson.dumps(
        {
            "event": event,
            "userProfile": orjson.Fragment(profile),
            "currentVisit": visit,
            "eventHistory": [orjson.Fragment(row) for row in rows],
        }
    )
