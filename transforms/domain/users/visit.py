"""The current visit of a user and how events change it (docs/spec/architecture.md, "Per-User State Structure")."""

from __future__ import annotations

from typing import Any

import msgspec

from transforms.domain.events.event import Event


class Visit(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A visit.

    Attributes:
        visit_id: id of the event that started the visit.
        start_ms: when it started.
        page_count: page views so far.
        is_first_visit: whether this is the user's first visit.
        ended: whether its last event was handled; the next event starts a new visit.
        assumed: whether its first event was not seen; it may be the visit that the user API knows.
    """

    visit_id: str
    start_ms: int
    page_count: int
    is_first_visit: bool
    ended: bool = False
    assumed: bool = False

    def public(self) -> dict[str, Any]:
        """Return the visit as rules and actions see it."""
        return {
            "visit_id": self.visit_id,
            "start_time": self.start_ms,
            "page_count": self.page_count,
            "is_first_visit": self.is_first_visit,
        }


def advance_visit(visit: Visit | None, event: Event) -> Visit:
    """Return the visit that an event belongs to, with the event counted.

    An event starts a new visit if it has ``is_first_in_visit``, if the visit before has ended, or if there is none. An
    event of type ``pageview`` raises ``page_count``. An event older than the visit's start changes nothing.
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
    """Merge the user API's visit (``known``) into that of events that were handled before its answer (``live``)."""
    if live is None:
        return known
    if known is None or not live.assumed or known.start_ms > live.start_ms:
        return live
    return msgspec.structs.replace(known, page_count=known.page_count + live.page_count, ended=live.ended)
