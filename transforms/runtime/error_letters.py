"""Which rule errors get a dead letter: a rule that fails on every event must not flood the topic."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from transforms.domain.events.dead_letter import RULE_ERROR, DeadLetter

DEFAULT_PER_MINUTE: Final = 10
_MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class _Count:
    minute: int
    letters: int = 0
    left_out: int = 0
    since_ms: int = 0  # when the first one was left out


class ErrorLetters:
    """Of each rule's errors, those that become dead letters: the first ``per_minute`` of every minute.

    The next minute's first letter says in its detail how many were left out. Time is whatever clock the caller has, ms.
    Kept in memory, one a worker, shared by its threads; it holds one small record for each rule that ever failed.
    """

    def __init__(self, per_minute: int = DEFAULT_PER_MINUTE) -> None:
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._counts: dict[str, _Count] = {}

    def choose(self, letters: Sequence[DeadLetter], now_ms: int) -> list[DeadLetter]:
        """The letters to send, in their order: all that are of other reasons, and the chosen ones of rule errors."""
        chosen = []
        for letter in letters:
            one = letter if letter.reason != RULE_ERROR else self._rule_error(letter, now_ms)
            if one is not None:
                chosen.append(one)
        return chosen

    def _rule_error(self, letter: DeadLetter, now_ms: int) -> DeadLetter | None:
        minute = now_ms // _MINUTE_MS
        with self._lock:
            count = self._counts.setdefault(letter.rule or "", _Count(minute))
            if minute > count.minute:  # a clock that is set back goes on with the minute it was in
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
