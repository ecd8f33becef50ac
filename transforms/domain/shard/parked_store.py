"""The events of one shard that wait for the user API."""

from __future__ import annotations

from typing import Final

from transforms.domain.events.record import Record
from transforms.domain.shard.facts import PackedParkedEvents

RECORD_OVERHEAD_BYTES: Final = 300


class ParkedEvents:
    """One user's waiting events, as (topic, record) in the order in which they came."""

    __slots__ = ("deadline_ms", "nbytes", "records")

    def __init__(self, deadline_ms: int) -> None:
        self.deadline_ms = deadline_ms
        self.records: list[tuple[str, Record]] = []
        self.nbytes = 0


class ParkedStore(dict[str, ParkedEvents]):
    """Waiting events by user, earliest deadline first once ``put_in_order`` was called.

    Read it as a mapping. Only its methods change it, because they keep ``nbytes`` up to date.
    """

    __slots__ = ("_in_order", "nbytes")

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0
        self._in_order = True

    def park(self, user_id: str, deadline_ms: int, topic: str, record: Record) -> None:
        """Add an event. The first one of a user sets the deadline for those that follow."""
        waiting = self.get(user_id)
        if waiting is None:
            if self and deadline_ms < next(reversed(self.values())).deadline_ms:
                self._in_order = False
            waiting = self[user_id] = ParkedEvents(deadline_ms)
        waiting.records.append((topic, record))
        nbytes = RECORD_OVERHEAD_BYTES + len(record.value)
        waiting.nbytes += nbytes
        self.nbytes += nbytes

    def unpark(self, user_id: str) -> None:
        """Remove the events of a user."""
        waiting = self.pop(user_id, None)
        if waiting is not None:
            self.nbytes -= waiting.nbytes

    def put_in_order(self) -> None:
        """Put the earliest deadline first; only replays and a clock that was set back change the order."""
        if not self._in_order:
            in_order = sorted(self.items(), key=lambda item: item[1].deadline_ms)
            self.clear()
            self.update(in_order)
            self._in_order = True

    def pack(self, user_id: str) -> PackedParkedEvents | None:
        """The events of a user for the journal; None: there are none."""
        waiting = self.get(user_id)
        return None if waiting is None else PackedParkedEvents(waiting.deadline_ms, waiting.records, user_id)

    def restore(self, packed: PackedParkedEvents) -> None:
        """Put packed events in, in place of those that may be there."""
        self.unpark(packed.user_id)
        for topic, record in packed.records:
            self.park(packed.user_id, packed.deadline_ms, topic, record)
