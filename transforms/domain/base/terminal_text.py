"""Foreign texts as they may be printed: nobody who writes to a topic or a file controls an operator's terminal.

Escaped is what ``str.isprintable`` does not take: C0, C1 and DEL, which begin sequences of terminals, and characters
that hide or reorder others (bidirectional overrides, zero width, line separators).
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """The text with control characters escaped, so that it adds no lines and controls no terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def lines_of(text: str) -> str:
    """A text of several lines, each as of ``one_line``."""
    return "\n".join(map(one_line, text.split("\n")))


def json_line(document: str) -> str:
    """A JSON document, in which only strings have such characters, with them as JSON's own escapes: the same value."""
    if document.isprintable():
        return document
    return "".join(char if char.isprintable() else _json_escape(char) for char in document)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
