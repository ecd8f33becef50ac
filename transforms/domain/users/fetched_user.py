"""Fetching what the user API knows of a user, away from the event path. How it is asked: ``domain.user_api``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from transforms.domain.users.history import Row
from transforms.domain.users.user import UNAVAILABLE, UNKNOWN
from transforms.domain.users.visit import Visit

# Kinds of errors, why a user is unavailable; each has a counter of its own.
TIMEOUT: Final = "timeout"
CONNECTION: Final = "connection"
STATUS: Final = "status"
BREAKER_OPEN: Final = "breaker_open"
TOO_LARGE: Final = "too_large"
BAD_ANSWER: Final = "bad_answer"
OVERFLOW: Final = "overflow"  # too many events waited for the answer
OTHER: Final = "other"  # a fault of the client


@dataclass(frozen=True, slots=True)
class FetchedUser:
    """The user API's answer; ``enrichment`` is one of ``users``' constants.

    Of an unavailable user ``error_kind`` is one of the kinds above and ``error`` a short reason.
    """

    enrichment: str
    profile_json: bytes
    visit: Visit | None
    history: list[Row]
    error_kind: str | None = None
    error: str | None = None


NOTHING_KNOWN: Final = FetchedUser(UNKNOWN, b"{}", None, [])


def unavailable(error_kind: str, error: str) -> FetchedUser:
    """The answer in place of one that did not come."""
    return FetchedUser(UNAVAILABLE, b"{}", None, [], error_kind, error)
