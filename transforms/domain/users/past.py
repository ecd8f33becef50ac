"""What the user API knows of a user's past, less what the stream tells (docs/user-state.md, "Order of events")."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from transforms.domain.events.event import Event
from transforms.domain.users.fetched_user import FetchedUser
from transforms.domain.users.history import Row, SortedRows
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import PAGE_VIEW, Visit


class Past(NamedTuple):
    """What an answer of the user API adds to a user.

    Attributes:
        rows: rows for the history, oldest first.
        visit: the visit before the events that wait.
        listed: ids of events that are still to come and whose pages the visit has.
        sorted_rows: the rows in place of ``rows``, if all of the answer's are added to an empty history.
    """

    rows: list[Row]
    visit: Visit | None
    listed: list[str]
    sorted_rows: SortedRows | None = None


def past_of(
    fetched: FetchedUser, user: UserState | None, waiting: Sequence[Event], until_ms: int, history_size: int
) -> Past:
    """Return what an answer adds. The user API may be ahead of the stream, and may list the very events that wait.

    Args:
        fetched: the answer.
        user: the user's state of events that were handled before the answer; None without any.
        waiting: events that are handled after the answer.
        until_ms: Kafka time of the first event that the shard has of the user: what came later comes from the stream.
        history_size: how many rows are kept.
    """
    if user is None and _are_taken_whole(fetched.history, waiting, until_ms, history_size):
        visit = fetched.visit
        if visit is not None:
            is_current = _is_current(visit, None, until_ms)
            at_least_0 = max(0, visit.page_count)
            visit = msgspec.structs.replace(visit, page_count=at_least_0, from_api=True) if is_current else None
        return Past([], visit, [], fetched.history)
    history = fetched.history.rows()
    handled = [] if user is None else user.history.rows()
    handled_ids = {row.event_id for row in handled}
    waiting_ids = {event.event_id for event in waiting}
    to_come = [row for row in history if row.event_id not in handled_ids | waiting_ids]
    rows = [row for row in to_come if row.timestamp_ms <= until_ms]
    live, known = None if user is None else user.visit, fetched.visit
    if known is None or not _is_current(known, live, until_ms):
        return Past(rows[-history_size:], live, [])
    ids = {row.event_id for row in history}
    since_ms = known.start_ms
    pages = {event.event_id for event in waiting if _is_page_since(event, since_ms)} & ids - handled_ids
    known = msgspec.structs.replace(known, page_count=max(0, known.page_count - len(pages)), from_api=True)
    listed = [row.event_id for row in to_come if until_ms < row.timestamp_ms and since_ms <= row.timestamp_ms]
    return Past(rows[-history_size:], known if live is None else _joined(known, live, handled, ids), listed)


def _are_taken_whole(rows: SortedRows, waiting: Sequence[Event], until_ms: int, history_size: int) -> bool:
    """Whether no row is ahead of the stream, which is nearly always so."""
    count, newest_ms, _ = rows.packed
    return newest_ms <= until_ms and count <= history_size and not any(rows.has(event.event_id) for event in waiting)


def _is_page_since(event: Event, since_ms: int) -> bool:
    return event.known.event_type == PAGE_VIEW and event.timestamp_ms >= since_ms


def _is_current(known: Visit, live: Visit | None, until_ms: int) -> bool:
    """Whether the user API's visit is the one before the events that wait, or becomes a part of it."""
    if live is None:
        return known.start_ms <= until_ms
    if known.start_ms <= live.start_ms:
        return live.assumed and known.start_ms > live.after_ms
    return known.start_ms <= until_ms


def _joined(known: Visit, live: Visit, handled: list[Row], ids: Collection[str]) -> Visit:
    """Return the user API's visit with the pages of events that were handled before its answer."""
    if live.ended and live.end_ms < known.start_ms:
        return known
    counted = [row for row in handled if row.is_page and row.timestamp_ms >= live.start_ms]
    pages = sum(row.event_id not in ids and row.timestamp_ms >= known.start_ms for row in counted)
    if known.start_ms <= live.start_ms:
        pages += max(0, live.page_count - len(counted))  # of events that the history has lost
    return msgspec.structs.replace(known, page_count=known.page_count + pages, ended=live.ended, end_ms=live.end_ms)
