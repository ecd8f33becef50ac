"""A journal that has been read, as a worker keeps it in memory."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

from transforms.domain.shard.shard_state import ShardState

# Bounds of ``garbage_limit``. It is drawn for each shard and rewrite: the shards of a worker fill evenly and would
# otherwise all be rewritten in the same seconds.
GARBAGE_LIMITS: Final = (1.15, 1.35)


def draw_garbage_limit() -> float:
    """How many times the size of its state a journal may take."""
    return random.uniform(*GARBAGE_LIMITS)  # noqa: S311 - to spread work, not to keep a secret


@dataclass(slots=True, eq=False)
class FoldedJournal:
    """The state that a journal amounts to, and how much of the journal is folded into it. Nothing here is stored.

    Attributes:
        state: the shard's state.
        counts: for each bag the number of elements that are folded.
        log_bytes: for each bag the bytes of these elements, uncompressed.
        freed: the number of elements of the older bag, from its start, that hold no bytes any more.
        garbage_limit: how many times the size of its state the journal may take before it is rewritten.
        moving: while the journal is rewritten, the users that have yet to be moved, the next one last.
        memory: what the worker remembers of the shard and loses together with the state; the journal never reads it.
    """

    state: ShardState
    counts: list[int] = field(default_factory=lambda: [0, 0])
    log_bytes: list[int] = field(default_factory=lambda: [0, 0])
    freed: int = 1
    garbage_limit: float = field(default_factory=draw_garbage_limit)
    moving: list[str] | None = None
    memory: Any = None
