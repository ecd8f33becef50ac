"""Names that a misspelt name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``, whatever their cases and underscores; None if none is like it.

    A name that leaves out a word of a known one is like it: ``name`` and ``event_name``.
    """
    by_plain = {_plain(candidate): candidate for candidate in known}
    near = difflib.get_close_matches(_plain(name), by_plain, 1, 0.75)
    if near:
        return by_plain[near[0]]
    whole = [candidate for candidate in by_plain.values() if name.lower() in candidate.split("_") and len(name) > 1]
    return whole[0] if whole else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'NAME'?``, empty without a name that is like it."""
    near = nearest(name, known)
    return "" if near is None else f"; did you mean {near!r}?"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
