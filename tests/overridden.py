"""Applies our overrides of Beam for the time of a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runners.flink.overrides import OVERRIDES


@contextmanager
def overridden() -> Iterator[None]:
    """Apply the overrides while the context is open. Tests share a process, so Beam's own functions come back."""
    with pytest.MonkeyPatch.context() as patch:
        for override in OVERRIDES:
            owner, name = override.owner
            patch.setattr(owner, name, getattr(owner, name))  # puts Beam's own back at the end
            override.install()
        yield
