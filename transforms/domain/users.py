"""What is known of a user: profile, current visit, history (spec/architecture.md, "Per-User State Structure")."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from transforms.domain.events import Event
from transforms.domain.history import History

# Where a profile came from; actions and rules see it as ``enrichment``.
FETCHED: Final = "fetched"
UNKNOWN: Final = "unknown"  # the user API answered 404
UNAVAILABLE: Final = "unavailable"  # the user API did not answer in time


class Visit(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The current visit. ``ended`` says that its last event was seen, so that the next event starts a new one."""

    visit_id: str
    start_ms: int
    page_count: int
    is_first_visit: bool
    ended: bool = False

    def public(self) -> dict[str, Any]:
        """The visit as rules and actions see it."""
        return {
            "visit_id": self.visit_id,
            "start_time": self.start_ms,
            "page_count": self.page_count,
            "is_first_visit": self.is_first_visit,
        }


def advance_visit(visit: Visit | None, event: Event) -> Visit:
    """The visit that an event belongs to, itself counted.

    ``is_first_in_visit`` starts one, so does the first event after ``is_last_in_visit`` and the first event of a user
    without a visit. A page view counts as a page. An event older than the visit's start leaves it as it is.
    """
    fields = event.fields
    pages = 1 if fields["event_type"] == "pageview" else 0
    ended = fields["is_last_in_visit"]
    if visit is not None and event.timestamp_ms < visit.start_ms:
        return visit
    if visit is None or visit.ended or fields["is_first_in_visit"]:
        return Visit(event.event_id, event.timestamp_ms, pages, fields["is_first_event"], ended)
    if not pages and not ended:
        return visit
    return Visit(visit.visit_id, visit.start_ms, visit.page_count + pages, visit.is_first_visit, ended)


class UserState:
    """Mutable state of one user; only ``shard.View.apply`` changes it."""

    __slots__ = ("enrichment", "history", "last_seen_ms", "profile_json", "visit")

    def __init__(
        self, last_seen_ms: int, enrichment: str, profile_json: bytes, visit: Visit | None, history: History
    ) -> None:
        self.last_seen_ms = last_seen_ms
        self.enrichment = enrichment
        self.profile_json = profile_json
        self.visit = visit
        self.history = history

    @property
    def nbytes(self) -> int:
        """A cheap estimate of the memory held, for the state cache."""
        return 700 + len(self.profile_json) + self.history.nbytes

    def profile(self) -> dict[str, Any]:
        """The profile as rules and actions see it; empty but for ``enrichment`` when there is none."""
        profile: dict[str, Any] = orjson.loads(self.profile_json)
        if self.enrichment != FETCHED:
            profile["enrichment"] = self.enrichment
        return profile
