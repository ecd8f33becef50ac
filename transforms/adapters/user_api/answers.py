"""Reads the user API's answers: typed, so that what nobody needs is checked for its syntax only and makes no objects.

A worker's event thread waits while this runs, because of Python's interpreter lock.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
import orjson

from transforms.adapters.http.calls import CallError
from transforms.domain.base import exact_json
from transforms.domain.base.field_paths import FieldSelection, selection
from transforms.domain.events.event import MAX_DEPTH, MAX_SAFE_INTEGER, is_too_deep, nested_deeper
from transforms.domain.users.fetched_user import BAD_ANSWER, NOTHING_KNOWN, FetchedUser
from transforms.domain.users.history import NO_ROWS, Row, SortedRows, sort_api_rows, sort_rows
from transforms.domain.users.user import FETCHED
from transforms.domain.users.visit import Visit

PROFILE: Final = "profile"
VISIT: Final = "visit"
HISTORY: Final = "history"
# The only answer of an API that gives one document a user.
USER: Final = "user"

_Number = int | float
_BAD: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Visit(msgspec.Struct):
    visit_id: str
    start_time: _Number
    page_count: _Number
    is_first_visit: bool


class _PastEvent(msgspec.Struct, gc=False):
    event_id: str
    event_name: str
    timestamp: Annotated[int, msgspec.Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]


class _User(msgspec.Struct):
    profile: msgspec.Raw = msgspec.Raw(b"null")
    visit: msgspec.Raw = msgspec.Raw(b"null")
    history: msgspec.Raw = msgspec.Raw(b"null")


_visits = msgspec.json.Decoder(_Visit | None)
_past_events = msgspec.json.Decoder(list[_PastEvent] | None)
_users = msgspec.json.Decoder(_User | None)


def fetched_user(answers: Mapping[str, bytes | None], history_fields: tuple[str, ...]) -> FetchedUser:
    """Make a user of the answers.

    A row of the history or a visit that cannot be used is left out; it does not cost the profile.

    Args:
        answers: bodies by the name of the call, ``USER`` or the three others; None: the API knows nothing.
        history_fields: the fields of past events that are kept.

    Raises:
        CallError: the profile cannot be used.
    """
    answers = {name: None if body is None else body.removeprefix(BOM_UTF8) for name, body in answers.items()}
    if USER in answers:
        answers = _parts(answers[USER])
    profile, visit, history = (answers.get(name) for name in (PROFILE, VISIT, HISTORY))
    profile_json = None if profile is None else _profile(profile)
    if profile_json is None:
        return NOTHING_KNOWN
    problems: list[str] = []
    known_visit = None if visit is None else _visit(visit, problems)
    rows = NO_ROWS if history is None else _history(history, history_fields, problems)
    return FetchedUser(FETCHED, profile_json, known_visit, rows, problems=tuple(problems))


def _parts(content: bytes | None) -> Mapping[str, bytes | None]:
    if content is None:
        return {}
    try:
        user = _users.decode(content) or _User()
    except _BAD as error:
        raise _bad(USER, str(error)) from None
    return {PROFILE: bytes(user.profile), VISIT: bytes(user.visit), HISTORY: bytes(user.history)}


def _profile(content: bytes) -> bytes | None:
    try:
        profile = exact_json.loads(content)
    except orjson.JSONDecodeError as error:
        raise _bad(PROFILE, f"not JSON: {error}") from None
    if profile is None:
        return None
    if not isinstance(profile, dict):
        raise _bad(PROFILE, f"a JSON {type(profile).__name__}, allowed is an object")
    if is_too_deep(content, profile):
        raise _bad(PROFILE, f"nested deeper than {MAX_DEPTH} levels")
    # Copied because orjson's buffers have up to four times the size of the result, and this one is kept.
    return bytes(memoryview(exact_json.dumps(profile)))


def _visit(content: bytes, problems: list[str]) -> Visit | None:
    try:
        visit = _visits.decode(content)
        if visit is None:
            return None
        start_ms, pages = _integer(visit.start_time), _integer(visit.page_count)
    except (ValueError, *_BAD) as error:
        problems.append(f"{VISIT}: {error}")
        return None
    return Visit(visit.visit_id, start_ms, pages, visit.is_first_visit)


def _history(content: bytes, fields: tuple[str, ...], problems: list[str]) -> SortedRows:
    problem = "a row that is not as documented"
    try:
        events = _past_events.decode(content) or []
    except _BAD as error:
        problem = str(error)
    else:
        if not fields:
            return sort_api_rows(
                [event.event_id for event in events],
                [event.event_name for event in events],
                [event.timestamp for event in events],
            )
    try:
        documents = exact_json.loads(content)
    except orjson.JSONDecodeError:
        documents = {}
    if documents is None:
        return NO_ROWS
    selected = selection(fields)
    rows = [_row(document, selected) for document in documents] if isinstance(documents, list) else [None]
    if None in rows:
        problems.append(f"{HISTORY}: {problem}")
    return sort_rows(row for row in rows if row is not None)


def _row(document: Any, selected: FieldSelection) -> Row | None:
    try:
        event_id, event_name = document["event_id"], document["event_name"]
        timestamp_ms = _integer(document["timestamp"])
    except (KeyError, TypeError, ValueError):
        return None
    extra = selected.of(document)
    if type(event_id) is not str or type(event_name) is not str or nested_deeper(extra, MAX_DEPTH):
        return None
    return Row(timestamp_ms, event_id, event_name, extra or None, from_api=True)


def _integer(number: Any) -> int:
    """A whole number, also one that is written as 5.0.

    Raises:
        ValueError: it is no whole number that JSON readers hold exactly.
    """
    if type(number) not in (int, float) or not abs(number) <= MAX_SAFE_INTEGER or int(number) != number:
        raise ValueError(f"{number!r} is not a whole number")
    return int(number)


def _bad(name: str, reason: str) -> CallError:
    return CallError(BAD_ANSWER, f"{name}: {reason}")
