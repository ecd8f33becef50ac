"""The past firings of a rule that its cap or one of its cooldowns looks at.

A firing has two times (docs/rules.md, "The times of a firing"): its event time and its record time, ``received_ms``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Final

import msgspec

_SLOT_BYTES: Final = 400
_FIRING_BYTES: Final = 200

# The stream time at which a firing is forgotten, its event time, its record time.
_Firing = tuple[int, int, int]


class Firings(msgspec.Struct, array_like=True, gc=False):
    """A slot in the journal. Fields are only ever added at the end, with a default.

    Attributes:
        times_ms: event times; the other lists have an item for each of them.
        until_ms: the stream time at which the last firing is forgotten.
        lags_ms: record time less event time; empty where an earlier release wrote it: the times are the same.
        early_ms: ``until_ms`` less the stream time at which the firing is forgotten; empty: they are the same.
        keep: how many firings the rule counted when it last fired; 0 where an earlier release wrote it: all.
    """

    rule: str
    slot: str
    times_ms: list[int]
    until_ms: int
    lags_ms: list[int] = []
    early_ms: list[int] = []
    keep: int = 0


class Slot:
    """The firings of a rule that its cap or one of its cooldowns remembers.

    Attributes:
        rule: name of the rule.
        slot: ``cap``, or the name of the cooldown.
        keep: how many firings the rule counted when it last fired.
        times_ms: the event times, ascending.
        received_ms: the record times, ascending.
    """

    __slots__ = ("_firings", "keep", "received_ms", "rule", "slot", "times_ms")

    def __init__(self, rule: str, slot: str) -> None:
        self.rule = rule
        self.slot = slot
        self.keep = 0
        self.times_ms: list[int] = []
        self.received_ms: list[int] = []
        self._firings: list[_Firing] = []  # ascending: those that are forgotten first come first

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return _SLOT_BYTES + _FIRING_BYTES * len(self._firings)

    @property
    def until_ms(self) -> int:
        """The stream time at which the last firing is forgotten."""
        return self._firings[-1][0]

    def due_ms(self, after_ms: int) -> int | None:
        """The first stream time after ``after_ms`` at which a firing is forgotten."""
        if self._firings[0][0] > after_ms:
            return self._firings[0][0]
        return next((until_ms for until_ms, *_ in self._firings if until_ms > after_ms), None)

    def add(self, at_ms: int, received_ms: int, keep: int, until_ms: int) -> None:
        """Add a firing of a rule that counts ``keep``, to be forgotten when the stream is at ``until_ms``."""
        self.keep = keep
        firing = until_ms, at_ms, received_ms
        if not self._firings or (keep == 1 and self._is_latest(firing)):
            self._firings, self.times_ms, self.received_ms = [firing], [at_ms], [received_ms]
            return
        insort(self._firings, firing)
        insort(self.times_ms, at_ms)
        insort(self.received_ms, received_ms)
        # Mostly firings have the same order by all three times, and the first one goes for the one that comes.
        while len(self._firings) > keep:
            _, at_ms, received_ms = self._firings[0]
            if at_ms > self.times_ms[-keep - 1] or received_ms > self.received_ms[-keep - 1]:
                break
            del self._firings[0]
            del self.times_ms[bisect_left(self.times_ms, at_ms)]
            del self.received_ms[bisect_left(self.received_ms, received_ms)]
        if len(self._firings) > 2 * keep:
            self._drop_covered()

    def _is_latest(self, firing: _Firing) -> bool:
        until_ms, at_ms, received_ms = firing
        return until_ms >= self.until_ms and at_ms >= self.times_ms[-1] and received_ms >= self.received_ms[-1]

    def _drop_covered(self) -> None:
        """Drop each firing that decides nothing: by both times ``keep`` are as late and remembered for as long.

        No more than 6 ``keep`` stay, unless rules or time zones change: a rule fires only while fewer than ``keep``
        remembered firings are later, by either time.
        """
        firings = self._firings
        self._set([])
        for firing in reversed(firings):
            _, at_ms, received_ms = firing
            first = max(bisect_left(self.times_ms, at_ms), bisect_left(self.received_ms, received_ms))
            if len(self._firings) - first < self.keep:
                self._firings.append(firing)
                insort(self.times_ms, at_ms)
                insort(self.received_ms, received_ms)
        self._firings.reverse()

    @property
    def is_empty(self) -> bool:
        """Whether all firings are forgotten."""
        return not self._firings

    def expire(self, stream_ms: int) -> None:
        """Forget the firings that are remembered until ``stream_ms`` or less."""
        expired = bisect_right(self._firings, stream_ms, key=_until_ms)
        if expired:
            self._set(self._firings[expired:])

    def _set(self, firings: list[_Firing]) -> None:
        self._firings = firings
        self.times_ms = sorted(at_ms for _, at_ms, _ in firings)
        self.received_ms = sorted(received_ms for _, _, received_ms in firings)

    def pack(self) -> Firings:
        """A copy for the journal."""
        until_ms = self.until_ms
        return Firings(
            self.rule,
            self.slot,
            [at_ms for _, at_ms, _ in self._firings],
            until_ms,
            [received_ms - at_ms for _, at_ms, received_ms in self._firings],
            [until_ms - each_ms for each_ms, _, _ in self._firings],
            self.keep,
        )

    @classmethod
    def unpack(cls, packed: Firings) -> Slot:
        """The slot that was packed."""
        slot, number = cls(packed.rule, packed.slot), len(packed.times_ms)
        slot.keep = packed.keep or number
        lags_ms, early_ms = packed.lags_ms or [0] * number, packed.early_ms or [0] * number
        slot._set(
            sorted(
                (packed.until_ms - early, at_ms, at_ms + lag_ms)
                for at_ms, lag_ms, early in zip(packed.times_ms, lags_ms, early_ms, strict=True)
            )
        )
        return slot


def _until_ms(firing: _Firing) -> int:
    return firing[0]
