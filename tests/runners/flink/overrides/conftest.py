from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.overridden import overridden


@pytest.fixture
def applied() -> Iterator[None]:
    """The overrides are installed."""
    with overridden():
        yield
