"""The ledger of deliveries of one worker: its shards' sessions, kept up by one thread."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from transforms.adapters.ledger.kafka_log import Log, Record, lease_clock
from transforms.adapters.telemetry.metrics import WorkerMetrics
from transforms.domain.webhooks.delivery_queue import Delivery
from transforms.domain.webhooks.ledger import (
    FINAL,
    MAX_ERROR,
    LedgerPosition,
    LedgerRecord,
    Settled,
    delivery_key,
    encode_record,
)
from transforms.domain.webhooks.ledger_session import LedgerSession
from transforms.domain.webhooks.results import SendResult

_LOG: Final = logging.getLogger("event_trigger.ledger")
RENEW_EVERY_S: Final = 1.0
# While a shard waits for its first lease, the end of its partition is asked for more often.
_HURRY_S: Final = 0.05
_IDLE_S: Final = 0.05
# A shard that could not get a lease for so long while this process ran sends as without a ledger.
AWAY_S: Final = 15.0
_AWAY_LEASE_S: Final = 2.0
# A turn that took longer was stopped, or starved: how long Kafka had been silent before says nothing.
_PAUSE_S: Final = 2.0
_STORE_EVERY_MS: Final = 1000
_BATCH_S: Final = 0.005

Later = Callable[[float, Callable[[], None]], object]


class DeliveryLedger:
    """The sessions of a worker's shards. Thread-safe; ends when nobody refers to it any more.

    Args:
        log: the topic; partition n belongs to shard n.
        topic: its name, for positions.
        job: hash of the job.
        metrics: the worker's.
        later: calls back after a pause [s], in the thread that makes the calls.
    """

    def __init__(self, log: Log, topic: str, job: bytes, metrics: WorkerMetrics, later: Later) -> None:
        self.topic = topic
        self._core = _Core(log, job, metrics, later)
        thread = threading.Thread(target=self._core.run, name="ledger", daemon=True)
        thread.start()
        weakref.finalize(self, self._core.stopped.set)

    def open(self, shard: int, position: LedgerPosition | None) -> ShardLedger:
        """The ledger of a shard whose state has been folded anew, up to a position of its journal."""
        offset = position.offset if position is not None and position.topic == self.topic else None
        return ShardLedger(self._core, self._core.open(shard, offset), shard, self.topic)


class _Core:
    """What the thread and the shards share; it does not refer to the ``DeliveryLedger``, whose end ends the thread."""

    def __init__(self, log: Log, job: bytes, metrics: WorkerMetrics, later: Later) -> None:
        self.lock = threading.RLock()  # what Kafka refuses at once is reported while a shard holds it
        self.stopped = threading.Event()
        self.job = job
        self.metrics = metrics
        self.log = log
        self._worker = os.urandom(8)
        self._sessions: dict[int, LedgerSession] = {}
        self._starts: dict[int, int | None] = {}
        self._has_new = self._is_hurried = False
        self._asked_s = self._looped_s = self._shown_s = float("-inf")
        self._followed: dict[int, LedgerSession] = {}
        self._stuck_s: dict[int, float] = {}
        # Ends on their way. Who gets the lock next notes them: the thread that makes calls never waits for it.
        self._ended: deque[tuple[LedgerSession, Settled]] = deque()
        self._stored = self._unacknowledged = 0
        # Only used in the thread that makes calls:
        self._later = later
        self._batch: list[tuple[int, LedgerSession, Settled]] = []

    def open(self, shard: int, offset: int | None) -> LedgerSession:
        with self.lock:
            self.note_ends()
            session = self._sessions.get(shard)
            if session is None or not session.refold(offset):
                if session is not None:
                    session.close()
                session = self._sessions[shard] = LedgerSession(self.job, self._worker, session)
                self._starts[shard] = offset
                self._has_new = self._is_hurried = True
                self._claim(shard, session)
            elif session.is_fenced:
                self._claim(shard, session)
            return session

    def claim_if_due(self, shard: int, session: LedgerSession) -> None:
        """Claim a shard again that this worker still handles although another one has claimed it."""
        with self.lock:
            if session.should_claim(lease_clock()):
                self._claim(shard, session)

    def _claim(self, shard: int, session: LedgerSession) -> None:
        self.append(shard, session.claim(os.urandom(8)))
        self._asked_s = float("-inf")

    def append(self, shard: int, record: LedgerRecord) -> None:
        """Append a record of who has the shard; the caller holds the lock."""
        self._unacknowledged += 1
        self.log.append(shard, encode_record(record), partial(self._done, None, b""))

    def append_end(self, shard: int, session: LedgerSession, settled: Settled) -> None:
        """Append the end of a webhook with others; in the thread that makes calls, without the lock."""
        self._ended.append((session, settled))
        self._batch.append((shard, session, settled))
        # To append wakes Kafka's thread, which may take the processor from this one before its next call has begun.
        if len(self._batch) == 1:
            self._later(_BATCH_S, self._append_batch)

    def _append_batch(self) -> None:
        batch, self._batch = self._batch, []
        for shard, session, settled in batch:
            self.log.append(shard, encode_record(settled), partial(self._done, session, settled.key))

    def note_ends(self) -> None:
        """Tell the sessions of the ends; the caller holds the lock."""
        now_s = lease_clock() if self._ended else 0.0
        while self._ended:
            session, settled = self._ended.popleft()
            session.append(settled, now_s)
            self._unacknowledged += 1

    def _done(self, session: LedgerSession | None, key: bytes, is_stored: bool) -> None:
        with self.lock:
            self.note_ends()
            self._unacknowledged -= 1
            self._stored += is_stored
            if session is not None and not is_stored:
                session.lose(key)
        if not is_stored:
            self.metrics.count("ledger_appends_lost")

    # In the thread

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - without the thread no webhook would go out
                _LOG.warning("deliveries topic: %s: %s", type(error).__name__, error)
                self.stopped.wait(1.0)

    def _turn(self) -> None:
        with self.lock:
            follow = None
            if self._has_new:
                self._has_new = False
                self._followed = dict(self._sessions)
                follow = {
                    shard: self._starts[shard] if session.read_to is None else session.read_to
                    for shard, session in self._sessions.items()
                }
        if follow is not None:
            self.log.follow(follow)
        if not self._sessions:
            self.stopped.wait(_IDLE_S)
            return
        # Records come one by one; taken together they cost a fraction. Only a shard that waits is in a hurry.
        if not self._is_hurried:
            self.stopped.wait(_IDLE_S)
        records = self.log.read(_IDLE_S if self._is_hurried else 0.0)
        now_s = lease_clock()
        with self.lock:
            self.note_ends()
            self._take(records, now_s)
            self._keep_leases(now_s)
            stored, self._stored = self._stored, 0
        if stored:
            self.metrics.count("ledger_appends", stored)
        if now_s >= self._shown_s + 1.0:
            self._shown_s = now_s
            self._show(now_s)

    def _take(self, records: list[Record], now_s: float) -> None:
        for shard, offset, value in records:
            session = self._sessions.get(shard)
            if session is None or session is not self._followed.get(shard):
                continue  # the partition is read anew in the next turn
            self._stuck_s[shard] = 0.0
            was_fenced = session.is_fenced
            answer = session.read(offset, value, now_s)
            if answer is not None:
                self.append(shard, answer)
            if session.is_fenced and not was_fenced:
                self.metrics.count("ledger_claims_lost")
                _LOG.warning("shard %d: another worker has claimed its webhooks; none of them is sent here", shard)

    def _keep_leases(self, now_s: float) -> None:
        elapsed_s = now_s - self._looped_s
        self._looped_s = now_s
        answer = self.log.ends()
        if answer is not None:
            asked_s, ends = answer
            for shard, end in ends.items():
                if shard in self._sessions:
                    self._sessions[shard].end_is(end, asked_s)
        self._is_hurried = False
        for shard, session in self._sessions.items():
            if session.is_guarded(now_s) or session.is_fenced or elapsed_s >= _PAUSE_S:
                self._stuck_s[shard] = 0.0
                continue
            self._is_hurried = True
            stuck_s = self._stuck_s.get(shard, 0.0)
            self._stuck_s[shard] = stuck_s + elapsed_s
            if stuck_s + elapsed_s >= AWAY_S:
                if stuck_s < AWAY_S:
                    _LOG.warning("shard %d: the deliveries topic does not answer; webhooks go out without it", shard)
                session.allow_unguarded(now_s + _AWAY_LEASE_S)
        if now_s >= self._asked_s + (_HURRY_S if self._is_hurried else RENEW_EVERY_S):
            self._asked_s = now_s
            self.log.ask_ends(list(self._sessions))

    def _show(self, now_s: float) -> None:
        with self.lock:
            sessions = list(self._sessions.values())
            for session in sessions:
                session.forget_old(now_s)
                self.metrics.count("ledger_foreign_records", session.foreign)
                self.metrics.count("ledger_ids_forgotten", session.forgotten)
                session.foreign = session.forgotten = 0
            allowed = sum(session.allows(now_s) for session in sessions)
            guarded = sum(session.is_guarded(now_s) for session in sessions)
        self.metrics.set("ledger_shards_unguarded", allowed - guarded)
        self.metrics.set("ledger_shards_waiting", len(sessions) - allowed)
        self.metrics.set("ledger_unacknowledged", self._unacknowledged)


class ShardLedger:
    """The ledger for one shard whose state is open. ``LedgerCall``s may be used in any thread."""

    def __init__(self, core: _Core, session: LedgerSession, shard: int, topic: str) -> None:
        self._core = core
        self._session = session
        self._shard = shard
        self._topic = topic
        self._keys: dict[str, bytes] = {}
        self._stored: int | None = None
        self._stored_ms = 0

    def is_ready(self) -> bool:
        """Whether webhooks may be requested: everything that was sent before is known, or nobody can know it."""
        now_s = lease_clock()
        if self._session.allows(now_s):
            return True
        if self._session.is_fenced:
            self._core.claim_if_due(self._shard, self._session)
        return False

    def find(self, delivery: Delivery) -> Settled | None:
        """How a webhook ended that the state has as waiting."""
        key = self._keys[delivery.action_id] = delivery_key(delivery)
        with self._core.lock:
            self._core.note_ends()
            return self._session.find(key)

    def call(self, delivery: Delivery) -> LedgerCall:
        """What the sender needs for a webhook that was looked for."""
        return LedgerCall(self._core, self._session, self._shard, self._keys[delivery.action_id])

    def fold(self, action_ids: list[str], now_ms: int) -> LedgerPosition | None:
        """Note that the state gets these results; returns the position for the journal, now and then."""
        now_s = lease_clock()
        with self._core.lock:
            self._core.note_ends()
            for action_id in action_ids:
                key = self._keys.pop(action_id, None)
                if key is not None:
                    self._session.fold(key, now_s)
            offset = self._session.position
        if offset is None or offset == self._stored or now_ms < self._stored_ms + _STORE_EVERY_MS:
            return None
        self._stored, self._stored_ms = offset, now_ms
        return LedgerPosition(self._topic, offset)


class LedgerCall:
    """A webhook on its way: whether its requests may be made, and the record of its end."""

    __slots__ = ("_core", "_key", "_session", "_shard")

    def __init__(self, core: _Core, session: LedgerSession, shard: int, key: bytes) -> None:
        self._core, self._session, self._shard, self._key = core, session, shard, key

    def may_send(self) -> bool:
        """Whether a request may begin now; one that begins while the ledger does not answer is counted."""
        now_s = lease_clock()
        if not self._session.allows(now_s):
            return False
        if not self._session.is_guarded(now_s):
            self._core.metrics.count("deliveries_unguarded")
        return True

    def ended(self, result: SendResult) -> None:
        """Append the end of the webhook, if this is one; in the thread that makes calls."""
        if result.outcome.value not in FINAL or result.attempts == 0:
            return
        error = (result.error or "")[:MAX_ERROR]
        settled = Settled(self._core.job, self._key, result.outcome.value, result.status, result.attempts, error)
        self._core.append_end(self._shard, self._session, settled)
