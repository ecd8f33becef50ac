"""Which rules may run: a rule that keeps hitting its limits, or takes too much time, is set aside for a while.

Where few users cause it, the rule is set aside for these users, and goes on for all others: nobody's events can switch
off a rule for everybody.
"""

from __future__ import annotations

import contextlib
import heapq
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final

DEFAULT_TIME_SHARE: Final = 0.5

_MOST_USERS: Final = 1000  # with a record, or whose time is counted: user ids can be made up
_FEW_USERS: Final = 10
_MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class _Record:
    trips: deque[int] = field(default_factory=deque)
    until_ms: int | None = None
    pause_ms: int = 0


@dataclass(slots=True)
class _Spent:
    """What a rule's calls took in two periods of half a minute, the older one first, in ms by user."""

    since_ms: int
    before: dict[str, float] = field(default_factory=dict)
    now: dict[str, float] = field(default_factory=dict)
    before_ms: float = 0.0
    now_ms: float = 0.0

    def add(self, user: str, ms: float, now_ms: int) -> float:
        """Add a call's time; return what the last minute took."""
        age_ms = now_ms - self.since_ms
        if not 0 <= age_ms < _MINUTE_MS // 2:
            is_next = 0 <= age_ms < _MINUTE_MS
            self.before, self.before_ms = (self.now, self.now_ms) if is_next else ({}, 0.0)
            self.now, self.now_ms, self.since_ms = {}, 0.0, now_ms
        if user in self.now or len(self.now) < _MOST_USERS:  # beyond it, the users are many, whoever they are
            self.now[user] = self.now.get(user, 0.0) + ms
        self.now_ms += ms
        return self.before_ms + self.now_ms

    def largest(self) -> list[tuple[str, float]]:
        """The few users who took most, and what they took."""
        users = {user: self.before.get(user, 0.0) + self.now.get(user, 0.0) for user in self.before | self.now}
        return heapq.nlargest(_FEW_USERS, users.items(), key=lambda item: item[1])


def _drop_until(entries: deque[tuple[int, Any]], ms: int) -> None:
    """Drop the entries up to this time. Another thread may drop them meanwhile."""
    with contextlib.suppress(IndexError):
        while entries[0][0] <= ms:
            entries.popleft()


class Quarantine:
    """Rules that hit a limit too often, or take too large a share of a worker's time, do not run for ``pause_ms``.

    A rule is set aside for a user whose events made it hit a limit ``trips`` times within ``window_ms``. It is set
    aside for everybody if the events of ``trips`` users or more did, and if these trips are at least ``trip_share``
    of all evaluations of that time: ids of users can be made up. It is also set aside if its calls take more than
    ``time_share`` of a minute, for few users if they cause it.

    After the pause it is on trial: the next trip (of the user; for everybody, trips of such a share of the evaluations
    since) sets it aside at once, for twice as long, up to ``longest_pause_ms``; ``window_ms`` without a trip end the
    trial. All times are ms of the caller's clock. A worker's threads share one quarantine without a lock: what another
    thread does meanwhile changes the counts a little, if at all.
    """

    def __init__(
        self,
        trips: int = 3,
        window_ms: int = 600_000,
        pause_ms: int = 600_000,
        longest_pause_ms: int = 3_600_000,
        trip_share: float = 0.05,
        time_share: float = DEFAULT_TIME_SHARE,
    ) -> None:
        self._trips = trips
        self._window_ms = window_ms
        self._pause_ms = pause_ms
        self._longest_pause_ms = longest_pause_ms
        self._trip_share = trip_share
        self.time_share = time_share
        self.records: dict[Hashable, _Record] = {}
        self._tripped: dict[str, deque[tuple[int, str]]] = {}
        self._spent: dict[str, _Spent] = {}
        self._evaluated: deque[tuple[int, int]] = deque()
        self._swept_ms = 0

    def __bool__(self) -> bool:
        """Whether any rule has tripped lately; until then, every rule may run."""
        return bool(self.records)

    @property
    def share_text(self) -> str:
        """The limit of ``spent``, for messages."""
        return f"more than {self.time_share:g} of a minute of its worker"

    def allows(self, rule: str, user: str, now_ms: int) -> bool:
        """Whether the rule may run now on an event of the user."""
        return self._is_free(rule, now_ms) and self._is_free((rule, user), now_ms)

    def evaluated(self, events: int, now_ms: int) -> None:
        """Record that rules ran on this many events."""
        self._evaluated.append((now_ms, events))
        _drop_until(self._evaluated, now_ms - self._window_ms)
        if self.records and not 0 <= now_ms - self._swept_ms < _MINUTE_MS:
            self._swept_ms = now_ms
            for key in list(self.records):
                self._is_free(key, now_ms)

    def trip(self, rule: str, user: str, now_ms: int) -> bool:
        """Record that the rule hit a limit on an event of the user; True if that set it aside, for them or for all."""
        tripped = self._tripped.setdefault(rule, deque(maxlen=_MOST_USERS))
        tripped.append((now_ms, user))
        _drop_until(tripped, now_ms - self._window_ms)
        if len(self.records) >= _MOST_USERS:
            oldest = next((key for key in list(self.records) if key != rule), None)
            self.records.pop(oldest, None)
        is_set_aside = self._trip((rule, user), self._trips, now_ms)
        record = self.records.get(rule)
        since_ms = now_ms - self._window_ms if record is None or record.until_ms is None else record.until_ms
        counted = [by for at_ms, by in tuple(tripped) if at_ms >= since_ms]
        if len(set(counted)) < (self._trips if record is None else 1):
            return is_set_aside
        events = sum(count for at_ms, count in tuple(self._evaluated) if at_ms >= since_ms)
        return (len(counted) >= self._trip_share * events and self._trip(rule, 1, now_ms)) or is_set_aside

    def spent(self, rule: str, user: str, ms: float, now_ms: int) -> bool:
        """Record that a call of the rule took so long; True if that set it aside, for users or for all."""
        if self.time_share >= 1:
            return False
        spent = self._spent.setdefault(rule, _Spent(now_ms))
        rest, allowed = spent.add(user, ms, now_ms), self.time_share * _MINUTE_MS
        if rest <= allowed:
            return False
        self._spent.pop(rule, None)
        few = spent.largest()
        for number, (_, taken) in enumerate(few, 1):
            rest -= taken
            if rest <= allowed / 2:
                for by, _ in few[:number]:
                    self._trip((rule, by), 1, now_ms)
                return True
        return self._trip(rule, 1, now_ms)

    def until_ms(self, rule: str, user: str | None = None) -> int | None:
        """When the pause of the rule, or of the rule for the user, ends or ended; None if there was none lately."""
        record = self.records.get(rule if user is None else (rule, user))
        return None if record is None else record.until_ms

    def _is_free(self, key: Hashable, now_ms: int) -> bool:
        record = self.records.get(key)
        if record is None:
            return True
        if record.until_ms is None:
            if record.trips and record.trips[-1] + self._window_ms <= now_ms:
                self.records.pop(key, None)
            return True
        if now_ms >= record.until_ms + self._window_ms:
            self.records.pop(key, None)
        return now_ms >= record.until_ms

    def _trip(self, key: Hashable, trips: int, now_ms: int) -> bool:
        record = self.records.setdefault(key, _Record())
        if record.until_ms is not None:
            if now_ms < record.until_ms:
                return False  # another thread's call that began before the pause
            record.pause_ms = min(record.pause_ms * 2, self._longest_pause_ms)
        else:
            record.trips.append(now_ms)
            while record.trips[0] + self._window_ms <= now_ms:
                record.trips.popleft()
            if len(record.trips) < trips:
                return False
            record.pause_ms = self._pause_ms
        record.until_ms = now_ms + record.pause_ms
        return True
