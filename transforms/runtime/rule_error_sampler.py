"""Which rule errors become dead letters: a rule that fails on every event must not flood the topic."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace

from transforms.domain.events.dead_letter import RULE_ERROR, DeadLetter

DEFAULT_PER_MINUTE: Final = 10
_MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class _Count:
    minute: int
    letters: int = 0
    left_out: int = 0
    since_ms: int = 0  # when the first error was left out


class RuleErrorSampler:
    """Lets the first ``per_minute`` errors of each rule and minute become dead letters. Thread-safe.

    The first dead letter of the next minute says in its detail how many errors were left out. Times are of the caller's
    clock. A worker has one sampler in memory, with a small record for each rule that ever failed.
    """

    def __init__(self, per_minute: int = DEFAULT_PER_MINUTE) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._counts: dict[str, _Count] = {}

    def choose(self, letters: Sequence[DeadLetter], now_ms: int) -> list[DeadLetter]:
        """The dead letters to publish, in their order: all with other reasons, and the sampled rule errors."""
        sampled = (self._sample(letter, now_ms) if letter.reason == RULE_ERROR else letter for letter in letters)
        return [letter for letter in sampled if letter is not None]

    def _sample(self, letter: DeadLetter, now_ms: int) -> DeadLetter | None:
        minute = now_ms // _MINUTE_MS
        with self._lock:
            count = self._counts.setdefault(letter.rule or "", _Count(minute))
            if minute > count.minute:  # a clock that is set back stays in the later minute
                count.minute, count.letters = minute, 0
            if count.letters >= self._per_minute:
                count.since_ms = count.since_ms if count.left_out else now_ms
                count.left_out += 1
                return None
            count.letters += 1
            left_out, since_ms, count.left_out = count.left_out, count.since_ms, 0
        if not left_out:
            return letter
        since = datetime.fromtimestamp(since_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
        return replace(
            letter, detail=f"{letter.detail} [errors of this rule without a letter since {since}: {left_out}]"
        )
