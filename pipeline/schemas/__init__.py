"""JSON Schemas of the files that users write and of the records in topics; ``make readme`` writes them."""

from __future__ import annotations

from importlib import resources
from typing import Final

# What they describe. Their files are also in docs/schemas/.
SCHEMAS: Final = ("config", "rule", "groups", "destination", "action", "dead-letter", "decision", "audit")


def schema_text(name: str) -> str:
    """The text of one of ``SCHEMAS``."""
    return resources.files("pipeline.schemas").joinpath(f"{name}.schema.json").read_text("utf-8")
