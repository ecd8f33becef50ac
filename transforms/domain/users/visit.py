"""The current visit of a user, and how events move it."""

from __future__ import annotations

from typing import Any

import msgspec

from transforms.domain.events.event import Event


class Visit(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The current visit. ``ended`` says that its last event was seen, so that the next event starts a new one.

    ``assumed`` says that nothing showed its start: it may be the one that the user API knows.
    """

    visit_id: str
    start_ms: int
    page_count: int
    is_first_visit: bool
    ended: bool = False
    assumed: bool = False

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
        assumed = visit is None and not fields["is_first_in_visit"]
        return Visit(event.event_id, event.timestamp_ms, pages, fields["is_first_event"], ended, assumed)
    if not pages and not ended:
        return visit
    return msgspec.structs.replace(visit, page_count=visit.page_count + pages, ended=ended)


def join_visits(known: Visit | None, live: Visit | None) -> Visit | None:
    """The visit of a user whose events were handled before the user API told of ``known``."""
    if live is None:
        return known
    if known is None or not live.assumed or known.start_ms > live.start_ms:
        return live
    return msgspec.structs.replace(known, page_count=known.page_count + live.page_count, ended=live.ended)
