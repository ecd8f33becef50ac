"""Rows in pages, and the links between them; what a query string may say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import flask
from flask import request
from werkzeug.exceptions import BadRequest

from pipeline.console import did_you_mean

Row = TypeVar("Row")

ROWS: Final = 25  # a page that a phone can show


@dataclass(frozen=True, slots=True)
class RowsPage(Generic[Row]):
    """The rows of page ``number`` of ``pages``, out of ``total``; ``newer`` and ``older`` are URLs."""

    rows: Sequence[Row]
    number: int
    pages: int
    total: int
    newer: str | None
    older: str | None


def rows_page(rows: Sequence[Row], size: int = ROWS) -> RowsPage[Row]:
    """The page of rows that the request asks for; one beyond the last is the last one.

    Raises:
        BadRequest: ``page`` is no number from 1 on.
    """
    text = request.args.get("page", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise BadRequest(f"page is {text!r}, allowed: a number from 1 on")
    pages = max(1, -(-len(rows) // size))
    number = min(int(text), pages)
    shown = rows[(number - 1) * size : number * size]
    newer = None if number == 1 else url_with(page=number - 1)
    older = None if number == pages else url_with(page=number + 1)
    return RowsPage(shown, number, pages, len(rows), newer, older)


def url_with(**changes: Any) -> str:
    """The URL of this page with other arguments; an argument of None is left out."""
    arguments = {name: value for name, value in request.args.items() if value} | {"page": None} | changes
    kept = {name: value for name, value in arguments.items() if value is not None}
    return flask.url_for(str(request.endpoint), **{**(request.view_args or {}), **kept})


def text_argument(name: str) -> str | None:
    """An argument without spaces around it; None without one."""
    return request.args.get(name, "").strip() or None


def chosen(name: str, allowed: Collection[str]) -> str | None:
    """An argument that is one of some texts; None without one.

    Raises:
        BadRequest: it is another.
    """
    value = text_argument(name)
    if value is not None and value not in allowed:
        hint = did_you_mean(value, allowed) or f"allowed: {', '.join(allowed)}"
        raise BadRequest(f"{name} is {value!r}, {hint}")
    return value


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of a filter with how many rows have it, and the URL that selects it, or no longer does."""

    value: str
    count: int
    url: str
    is_chosen: bool


def choices(name: str, values: Iterable[str | None], most: int = 12) -> list[Choice]:
    """The most frequent values of an argument, the most frequent first; the chosen one is always there."""
    counts = Counter(value for value in values if value)
    now = text_argument(name)
    shown = dict(counts.most_common(most))
    if now is not None:
        shown.setdefault(now, counts[now])
    return [
        Choice(value, count, url_with(**{name: None if value == now else value}), value == now)
        for value, count in shown.items()
    ]


def nothing_found(what: str, read: int, criteria: dict[str, tuple[str | None, Iterable[str | None]]]) -> str:
    """Why a filter selects nothing, with the closest value that there is.

    Args:
        what: the rows, as "decision".
        read: how many were looked at.
        criteria: by name of the argument its value and the values that there are.
    """
    given = {name: value for name, (value, _) in criteria.items() if value is not None}
    if not given:
        return f"There is no {what}."
    hints = []
    for name, (value, known) in criteria.items():
        found = {text for text in known if text}
        hint = "" if value is None or value in found else did_you_mean(value, found)
        if hint:
            hints.append(f"{name}: {hint}")
    text = (
        f"None of the {read:,} {what}s looked at has {', '.join(f'{name} {value}' for name, value in given.items())}."
    )
    return " ".join([text, *hints])
