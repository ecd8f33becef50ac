"""Times as people write and read them on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.errors import OptionError


def shown_time(at_ms: int) -> str:
    """A time, ms since the epoch, to the second; ``read_time`` takes it."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(name: str, text: str | None) -> int | None:
    """The time that was given as ``--name``, ms since the epoch.

    Raises:
        OptionError: it is none.
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        allowed = "a time like 2024-01-31T08:00:00Z, UTC unless it says otherwise"
        raise OptionError(f"--{name} is {text!r}, allowed: {allowed}") from None
