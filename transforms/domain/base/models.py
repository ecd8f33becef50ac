"""Strict pydantic models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Strict, frozen, and without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
