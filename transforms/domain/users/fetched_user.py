"""The user API's answer for one user. ``adapters/user_api`` fetches it, away from the event path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from transforms.domain.users.history import NO_ROWS, SortedRows
from transforms.domain.users.user import UNAVAILABLE, UNKNOWN
from transforms.domain.users.visit import Visit

# Error kinds: why a user is unavailable. Each has its own counter.
TIMEOUT: Final = "timeout"
CONNECTION: Final = "connection"
STATUS: Final = "status"
BREAKER_OPEN: Final = "breaker_open"
TOO_LARGE: Final = "too_large"
BAD_ANSWER: Final = "bad_answer"
OVERFLOW: Final = "overflow"  # too many events wait for the answer
OTHER: Final = "other"  # an unexpected error of the client


@dataclass(frozen=True, slots=True)
class FetchedUser:
    """The user API's answer.

    Attributes:
        enrichment: ``FETCHED``, ``UNKNOWN`` or ``UNAVAILABLE`` of ``users/user.py``.
        profile_json: the profile, a JSON object; ``{}`` without a profile.
        visit: the current visit.
        history: past events.
        error_kind: for an unavailable user, one of the error kinds above.
        error: for an unavailable user, a short reason.
        problems: why the visit, or rows of the history, could not be used and are left out.
    """

    enrichment: str
    profile_json: bytes
    visit: Visit | None
    history: SortedRows = NO_ROWS
    error_kind: str | None = None
    error: str | None = None
    problems: tuple[str, ...] = ()


NOTHING_KNOWN: Final = FetchedUser(UNKNOWN, b"{}", None)


def unavailable(error_kind: str, error: str) -> FetchedUser:
    """Return the answer for a user who could not be fetched."""
    return FetchedUser(UNAVAILABLE, b"{}", None, NO_ROWS, error_kind, error)
