"""The current visit of a user and how events change it (docs/user-state.md, "Which visit an event belongs to")."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from transforms.domain.events.event import Event

PAGE_VIEW: Final = "pageview"


class Visit(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A visit. New fields are added only at the end and with a default: the journal stores it.

    Attributes:
        visit_id: id of the event that started the visit.
        start_ms: when it started.
        page_count: page views so far.
        is_first_visit: whether this is the user's first visit.
        ended: whether its last event was handled; the next event starts a new visit.
        assumed: whether its first event was not seen; it may be the visit that the user API knows.
        end_ms: time of its last event; 0 while it has not ended, and if an earlier release saw its end.
        after_ms: end of the visit before, where that is known; an assumed visit did not start earlier.
        from_api: whether the user API knew it: its pages include those of events that the API listed.
    """

    visit_id: str
    start_ms: int
    page_count: int
    is_first_visit: bool
    ended: bool = False
    assumed: bool = False
    end_ms: int = 0
    after_ms: int = 0
    from_api: bool = False

    def public(self) -> dict[str, Any]:
        """Return the visit as rules and actions see it."""
        return {
            "visit_id": self.visit_id,
            "start_time": self.start_ms,
            "page_count": self.page_count,
            "is_first_visit": self.is_first_visit,
        }


def filter_visit(visit: Visit | None, event: Event) -> dict[str, Any]:
    """Return what filters see of an event's visit: without one, values of the same types that say nothing."""
    return (visit or Visit("", event.timestamp_ms, 0, False)).public()


def advance_visit(visit: Visit | None, event: Event, is_listed: bool = False) -> Visit:
    """Return the user's visit after an event, with the event counted.

    Args:
        visit: the visit before the event.
        event: the event, which need not be newer than those before.
        is_listed: whether the user API listed the event before it came; then the API's visit has its page already.
    """
    known = event.known
    at_ms = event.timestamp_ms
    pages = 1 if known.event_type == PAGE_VIEW else 0
    is_first, is_last = known.is_first_in_visit, known.is_last_in_visit
    if visit is not None:
        if at_ms < visit.start_ms:
            return _with_earlier_start(visit, event, pages)
        if not (at_ms >= visit.end_ms if visit.ended else is_first):
            if is_listed and visit.from_api:
                pages = 0
            if not pages and not is_last:
                return visit
            end_ms = max(visit.end_ms, at_ms) if is_last else visit.end_ms
            return msgspec.structs.replace(
                visit, page_count=visit.page_count + pages, ended=visit.ended or is_last, end_ms=end_ms
            )
    after_ms = max(visit.start_ms, visit.end_ms) if visit is not None and visit.ended else 0
    end_ms = at_ms if is_last else 0
    return Visit(
        event.event_id,
        at_ms,
        pages,
        known.is_first_event,
        is_last,
        not is_first,
        end_ms,
        0 if is_first else after_ms,
    )


def _with_earlier_start(visit: Visit, event: Event, pages: int) -> Visit:
    """Return an assumed visit with the start that it turns out to have had; any other visit as it is."""
    is_first = event.known.is_first_in_visit
    is_start = is_first or visit.after_ms > 0
    if not visit.assumed or not is_start or event.timestamp_ms < visit.after_ms or event.known.is_last_in_visit:
        return visit
    return msgspec.structs.replace(
        visit,
        visit_id=event.event_id,
        start_ms=event.timestamp_ms,
        page_count=visit.page_count + pages,
        is_first_visit=event.known.is_first_event,
        assumed=not is_first,
    )
