"""What others have sent, shown on a terminal."""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text as one line that does nothing to a terminal: ids, details and receivers' answers hold anything."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
