"""Names that a misspelt name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``, whatever their cases and underscores; None if none is like it.

    A word of a known name is like it: ``name`` and ``event_name``, ``pages`` and ``page_count``.
    """
    by_plain = {_plain(candidate): candidate for candidate in known}
    near = difflib.get_close_matches(_plain(name), by_plain, 1, 0.75)
    if near:
        return by_plain[near[0]]
    by_word = {word: candidate for candidate in by_plain.values() for word in reversed(candidate.lower().split("_"))}
    near = difflib.get_close_matches(name.lower(), [word for word in by_word if len(word) > 2 or word == "id"], 1, 0.8)
    return by_word[near[0]] if near else None


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """The known name of which ``name`` is almost certainly a misspelling, None if of none."""
    by_plain = {_plain(candidate): candidate for candidate in known}
    plain = _plain(name)
    near = difflib.get_close_matches(plain, by_plain, 1, 0.88)
    near = near or [candidate for candidate in by_plain if sorted(candidate) == sorted(plain)]
    return by_plain[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'NAME'?``, empty without a name that is like it."""
    near = nearest(name, known)
    return "" if near is None else f"; did you mean {near!r}?"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
