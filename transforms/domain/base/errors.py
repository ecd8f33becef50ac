"""The root of all exceptions that this project defines below ``transforms``."""

from __future__ import annotations


class EventTriggerError(Exception):
    """An error that this project raises on purpose; the message names the thing, its value and what is allowed.

    Subclasses keep a built-in base class, such as ``ValueError``, where callers rely on it.
    """
