"""How many examples hypothesis tries: all where they are random, fewer where every run tries the same ones."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

_QUICK: Final = 20


def examples(count: int, same: int | None = None) -> settings:
    """Return the settings of a test that tries ``count`` examples.

    Args:
        count: under the profile ``random`` of tests/conftest.py (``ARGS=--hypothesis-profile=random``).
        same: under the profile ``same``, ``count`` without it. Its examples are the same in every run, so a run finds
            only what the code before it has broken. A test that takes more than ten seconds tries a quarter.
    """
    profile = settings.get_current_profile_name()
    if profile == "quick":
        return settings(max_examples=min(count, _QUICK))
    return settings(max_examples=count if profile == "random" or same is None else same)
