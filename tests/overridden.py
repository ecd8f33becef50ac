"""Beam with our overrides for a while, and as it came afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runners.flink.overrides import OVERRIDES


@contextmanager
def overridden() -> Iterator[None]:
    """Install the overrides while the context is open, in whatever release of Beam; tests share a process."""
    with pytest.MonkeyPatch.context() as patch:
        for override in OVERRIDES:
            owner, name = override.owner
            patch.setattr(owner, name, getattr(owner, name))  # puts Beam's own back at the end
            override.install()
        yield
