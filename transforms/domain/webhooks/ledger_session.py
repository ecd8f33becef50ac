"""One worker's hold on one partition of the ledger: what it has read there, and how long it may send.

Pure: records and times of a monotonic clock [s] go in. The order of a partition decides who sends: the newest claim.

- A worker claims the partition and reads up to its own claim before it sends.
- It sends while it has a lease. A lease lasts ``LEASE_S`` from the moment at which it asked for the partition's end,
  and begins once it has read up to that end without finding a newer claim. So after a pause of any length it has none.
- The worker that finds a newer claim sends no more and appends that it has released the shard. Without such a record
  the new one waits until the former lease must have ended.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from transforms.domain.webhooks.ledger import Claim, LedgerRecord, Released, Settled, decode_record

LEASE_S: Final = 5.0
# A shard that this worker still has to handle is claimed again, but not by one that is about to be stopped.
RECLAIM_S: Final = 15.0
# How long ids are remembered: those of the state that may have to be folded anew, and those that may be decided again.
FOLDED_S: Final = 60.0
UNFOLDED_S: Final = 3600.0
# Of each of the two.
MAX_UNFOLDED: Final = 50_000

_NOBODY: Final = b""
_UNKNOWN: Final = b"?"


class _Entry:
    __slots__ = ("offset", "seen_s", "settled")

    def __init__(self, settled: Settled, offset: int | None, seen_s: float) -> None:
        self.settled = settled
        self.offset = offset  # None: appended, and not read yet
        self.seen_s = seen_s


class LedgerSession:
    """What a worker knows of a partition. Not thread-safe.

    Args:
        job: hash of the job; records of others say nothing.
        worker: id of this process.
        former: the session of this process that is replaced, because the partition has to be read anew.

    Attributes:
        read_to: the offset of the next record to read; None: none was read yet.
        is_fenced: whether a newer claim was found.
        foreign: records of other jobs that were read.
        forgotten: ids that were dropped before the shard asked for them, because there were too many.
    """

    def __init__(self, job: bytes, worker: bytes, former: LedgerSession | None = None) -> None:
        self._job = job
        self._worker = worker
        self._last_worker: bytes = _UNKNOWN if former is None else former._last_worker
        self._not_before_s: float = float("inf") if former is None else former._not_before_s
        self._session = b""
        self._claim_read = self.is_fenced = self._is_active = False
        self._fenced_s = 0.0
        self._lease_until_s = self._away_until_s = float("-inf")
        self._ends: deque[tuple[int, float]] = deque()
        self._unread: dict[bytes, _Entry] = {}
        self._unfolded: dict[bytes, _Entry] = {}  # in the order of their offsets
        self._folded: dict[bytes, _Entry] = {}  # in the order in which they were folded
        self._complete_from = 0
        self.read_to: int | None = None
        self.foreign = self.forgotten = 0

    # Who may send

    def claim(self, session: bytes) -> Claim:
        """Begin to take over the shard; returns the record to append."""
        self._session = session
        self._claim_read = self.is_fenced = self._is_active = False
        self._lease_until_s = self._away_until_s = float("-inf")
        self._ends.clear()
        return Claim(self._job, self._worker, session)

    def should_claim(self, now_s: float) -> bool:
        """Whether a worker that still has to handle the shard claims it again, after another has claimed it."""
        return self.is_fenced and now_s >= self._fenced_s + RECLAIM_S

    def allows(self, now_s: float) -> bool:
        """Whether a request may be made now."""
        return now_s < self._lease_until_s or now_s < self._away_until_s

    def is_guarded(self, now_s: float) -> bool:
        """Whether no other worker can be sending, and everything that was sent before is known."""
        return now_s < self._lease_until_s

    def end_is(self, end: int, asked_s: float) -> None:
        """Take in where the partition ended when Kafka was asked, at ``asked_s`` or later."""
        self._ends.append((end, asked_s))
        self._renew()

    def _renew(self) -> None:
        if self.read_to is None or not self._claim_read or self.is_fenced:
            return
        while self._ends and self._ends[0][0] <= self.read_to:
            _, asked_s = self._ends.popleft()
            if asked_s >= self._not_before_s:
                self._is_active = True
                self._lease_until_s = max(self._lease_until_s, asked_s + LEASE_S)

    def allow_unguarded(self, until_s: float) -> None:
        """Let the shard send although the ledger does not answer, unless another is known to have it."""
        if not self.is_fenced:
            self._away_until_s = until_s

    def close(self) -> None:
        """End the hold: another session of this process takes its place."""
        self.is_fenced = True
        self._fenced_s = float("inf")
        self._lease_until_s = self._away_until_s = float("-inf")

    # What has been read

    def read(self, offset: int, value: bytes, now_s: float) -> LedgerRecord | None:
        """Take in the partition's next record; returns a record to append, if there is one."""
        if self.read_to is None:
            self._complete_from = offset
            if offset == 0 and self._last_worker == _UNKNOWN:
                self._last_worker = _NOBODY
        self.read_to = offset + 1
        record = decode_record(value)
        answer = None
        if record is None or record.job != self._job:
            self.foreign += 1
        elif isinstance(record, Settled):
            self._add(record, offset, now_s)
        elif isinstance(record, Claim):
            answer = self._read_claim(record, now_s)
        elif record.session == self._session and self._claim_read:
            self._not_before_s = min(self._not_before_s, now_s)
        self._renew()
        return answer

    def _read_claim(self, claim: Claim, now_s: float) -> Released | None:
        before, self._last_worker = self._last_worker, claim.worker
        if claim.session == self._session:
            self._claim_read = True
            if before == _NOBODY:
                self._not_before_s = now_s
            elif before != self._worker:  # else whoever had it before this worker's last claim is no longer sending
                self._not_before_s = now_s + LEASE_S
            return None
        if not self._claim_read:
            return None
        was_active, self._is_active = self._is_active, False
        self.is_fenced, self._fenced_s = True, now_s
        self._lease_until_s = self._away_until_s = float("-inf")
        return Released(self._job, claim.session) if was_active else None

    def _add(self, settled: Settled, offset: int, now_s: float) -> None:
        folded = self._folded.get(settled.key)
        if folded is not None and folded.offset is None:
            folded.offset = offset
            return
        self._unread.pop(settled.key, None)
        self._unfolded.pop(settled.key, None)  # a repeat: the newest record is the one to go on from
        self._unfolded[settled.key] = _Entry(settled, offset, now_s)

    def append(self, settled: Settled, now_s: float) -> None:
        """Note that a record is on its way to the partition."""
        self._unread[settled.key] = _Entry(settled, None, now_s)

    def lose(self, key: bytes) -> None:
        """Note that such a record did not arrive."""
        self._unread.pop(key, None)

    def find(self, key: bytes) -> Settled | None:
        """How a webhook ended that the shard's state has as waiting; None: as far as is known it has not ended."""
        entry = self._unfolded.get(key) or self._unread.get(key)
        return None if entry is None else entry.settled

    def fold(self, key: bytes, now_s: float) -> None:
        """Note that the shard's state has the end of a webhook."""
        entry = self._unfolded.pop(key, None) or self._unread.pop(key, None)
        if entry is not None:
            entry.seen_s = now_s
            self._folded[key] = entry

    @property
    def position(self) -> int | None:
        """Where a worker has to begin reading that continues from the shard's present state."""
        first = next(iter(self._unfolded.values()), None)
        return self.read_to if first is None else first.offset

    def refold(self, position: int | None) -> bool:
        """Go back to what a state knows that has everything before ``position``; False: this needs reading anew."""
        if self.read_to is None:
            return True  # nothing was folded yet
        position = position or 0
        if not self._complete_from <= position <= self.read_to:
            return False
        entries = [*self._folded.items(), *self._unfolded.items()]
        self._unread |= {key: entry for key, entry in entries if entry.offset is None}
        known = [(key, entry) for key, entry in entries if entry.offset is not None and entry.offset >= position]
        self._unfolded = dict(sorted(known, key=lambda item: item[1].offset or 0))
        self._folded = {}
        return True

    def forget_old(self, now_s: float) -> None:
        """Forget ids that nobody will ask for any more."""
        for entries, kept_s in ((self._unfolded, UNFOLDED_S), (self._folded, FOLDED_S)):
            while entries:
                key, entry = next(iter(entries.items()))
                # A state that is folded anew begins at the position, and would miss what was folded behind it.
                is_needed = entries is self._folded and (entry.offset or 0) >= (self.position or 0)
                too_many = len(entries) > MAX_UNFOLDED
                if not too_many and (is_needed or now_s <= entry.seen_s + kept_s):
                    break
                del entries[key]
                self.forgotten += too_many and entries is self._unfolded
                self._complete_from = max(self._complete_from, (entry.offset or 0) + 1)
