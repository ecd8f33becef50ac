"""Times as text on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.errors import OptionError


def shown_time(at_ms: int) -> str:
    """A time, ms since the epoch, as ISO 8601 in whole seconds; ``read_time`` reads it."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(name: str, text: str | None) -> int | None:
    """Read the time that was given as ``--name``; returns ms since the epoch, None without the flag.

    Raises:
        OptionError: the text is no time.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        allowed = "a time like 2024-01-31T08:00:00Z, UTC unless it says otherwise"
        raise OptionError(f"--{name} is {text!r}, allowed: {allowed}") from None
