"""The root of this project's exceptions. Each subclass says in its module when it is raised."""

from __future__ import annotations


class EventTriggerError(Exception):
    """Anything that this project raises on purpose; the message names the thing, the value and what is allowed."""
