"""What the pydantic models that check files and records have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A model that converts no types, forbids unknown fields and is frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def repeated(names: Iterable[str]) -> str | None:
    """The first name that comes more than once, None if there is none."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
