"""The one place that records a fact while a step is computed."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.domain.shard.facts import Fact
from transforms.domain.shard.shard_state import ShardState


@dataclass(slots=True)
class FactRecorder:
    """Applies each fact of a step to the state at once, because the next event of a user must see the one before.

    Attributes:
        state: the shard's state.
        now_ms: processing time of the step.
        facts: the facts so far, in order, for the journal.
    """

    state: ShardState
    now_ms: int
    facts: list[Fact]

    def record(self, fact: Fact) -> None:
        """Apply a fact and keep it for the journal."""
        self.state.apply(self.now_ms, fact)
        self.facts.append(fact)
