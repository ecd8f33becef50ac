"""The base class of all pydantic models that check files and records."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A model that converts no types, forbids unknown fields and is frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
