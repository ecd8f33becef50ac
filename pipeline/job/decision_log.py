"""Decisions of the decision log: selecting them and describing them, for the command and the page."""

from __future__ import annotations

from dataclasses import dataclass

from runners.flink.redaction import without_secrets
from transforms.domain.shard.decisions import Decision


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """Selects decisions; a criterion of None selects all. ``event`` and ``action`` are ids."""

    user: str | None = None
    rule: str | None = None
    action: str | None = None
    event: str | None = None

    def matches(self, decision: Decision) -> bool:
        """Whether all criteria select the decision."""
        return (
            self.user in (None, decision.user_id)
            and self.rule in (None, decision.rule)
            and self.action in (None, decision.action_id)
            and self.event in (None, decision.event_id)
        )


def delivery_summary(decision: Decision) -> str:
    """Attempts, status, latency and detail of a decision as one text; empty if it has none of them."""
    parts = []
    if decision.attempts:
        parts.append(f"{decision.attempts} attempt{'s' if decision.attempts > 1 else ''}")
    if decision.status is not None:
        parts.append(f"status {decision.status}")
    if decision.latency_ms is not None:
        parts.append(f"{decision.latency_ms} ms")
    return ": ".join(text for text in (", ".join(parts), without_secrets(decision.detail or "")) if text)
