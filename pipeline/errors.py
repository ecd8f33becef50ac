"""What the launcher and the commands refuse."""

from __future__ import annotations


class OptionError(ValueError):
    """An option that cannot be used: names it, its value and what is allowed."""
