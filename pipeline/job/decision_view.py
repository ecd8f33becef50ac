"""Text about decisions of the decision log, for the command and the page."""

from __future__ import annotations

from transforms.domain.shard.decisions import Decision


def delivery_summary(decision: Decision) -> str:
    """Attempts, status, latency and detail of a decision as one text; empty if it has none of them."""
    parts = []
    if decision.attempts:
        parts.append(f"{decision.attempts} attempt{'s' if decision.attempts > 1 else ''}")
    if decision.status is not None:
        parts.append(f"status {decision.status}")
    if decision.latency_ms is not None:
        parts.append(f"{decision.latency_ms} ms")
    return ": ".join(text for text in (", ".join(parts), decision.detail) if text)
