"""The folded state of one user shard, and the facts that change it.

A fact is a tuple ``(kind, …)`` of MessagePack types. Only ``ShardState.apply`` changes a state, live and on replay
alike, so that replaying a journal gives the view that wrote it. Facts hold outcomes, never inputs to be computed
again: code that changes its mind later must not change what an old journal says.

A journal that is being rewritten (``domain.journal``) may tell of a user before it says what the user's state was when
it was written anew (``MOVED``). So facts about nobody are no error, and ``MOVED`` replaces whatever is there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from transforms.domain.base.due_index import DueIndex
from transforms.domain.events.record import Record
from transforms.domain.rules.sets import StoredRules
from transforms.domain.rules.state import NOTHING, PackedRuleState, RuleState
from transforms.domain.users.history import History, Row
from transforms.domain.users.user import (
    FETCHED,
    OVERHEAD_BYTES,
    UNAVAILABLE,
    UNKNOWN,
    PackedUser,
    UserState,
)
from transforms.domain.users.visit import Visit
from transforms.domain.webhooks.delivery_queue import DeliveryQueue, PackedDeliveryQueue

Fact = tuple[Any, ...]

# The numbers are in every journal that was ever written: never reuse one. A fact grows at its end only, with defaults.
OBSERVED: Final = 0  # user_id, row, visit | None (unchanged)
LOADED: Final = 1  # user_id, enrichment, profile_json, visit | None, rows: a new user
PARKED: Final = 2  # user_id, deadline_ms, topic, record
UNPARKED: Final = 3  # user_id
SWEPT: Final = 4  # cutoff_ms: everybody not seen since is forgotten
FORGOTTEN: Final = 5  # user_id, whether the state of rules too = False
UPDATED: Final = 6  # user_id, enrichment | None (asked in vain), profile_json, visit | None (unchanged), rows
TOUCHED: Final = 7  # user_id: seen, nothing else
DROPPED: Final = 8  # user_id, event_id: a row of the history
CUT: Final = 9  # user_id, max_bytes: the history's oldest rows go
# PackedUser | None, PackedParked | None, PackedRuleState | None = None, PackedDeliveries | None = None: all of a user
MOVED: Final = 10
FIRED: Final = 11  # user_id, rule, slot, at_ms, how many to keep, until_ms
BEGUN: Final = 12  # user_id, Opening
ENDED: Final = 13  # user_id, rule, event_id and match of the opening
HELD: Final = 14  # user_id, Held: new, or put off
RELEASED: Final = 15  # user_id, action_id
AWAITED: Final = 16  # user_id, stream_ms: what rules have due by then waits for the user API; 0: no more
LAPSED: Final = 17  # user_id, stream_ms: firings that nothing asks for any more are forgotten
RULES: Final = 18  # number, record: the rule set that is live in this shard (domain.rule_sets)
UNFIRED: Final = 19  # user_id, rule, slot
QUEUED: Final = 20  # user_id, Delivery
RESCHEDULED: Final = 21  # user_id, Delivery as it is after a try
SETTLED: Final = 22  # user_id, action_id
SWITCHED: Final = 23  # destination, whether it is enabled

_NEWEST_FACT: Final = SWITCHED
_OF_DELIVERIES: Final = (QUEUED, RESCHEDULED, SETTLED)
_OF_RULES: Final = (FIRED, BEGUN, ENDED, HELD, RELEASED, AWAITED, LAPSED, UNFIRED)
_RECORD_OVERHEAD_BYTES: Final = 300


class PackedParked(msgspec.Struct, array_like=True):
    """Waiting events in the journal. Fields are only ever added at the end, with a default."""

    deadline_ms: int
    records: list[tuple[str, Record]]
    user_id: str = ""


class _Snapshot(msgspec.Struct, array_like=True):
    """What journals of version 1 start with."""

    version: int
    users: list[PackedUser]
    parked: dict[str, PackedParked]


_snapshot_decoder = msgspec.msgpack.Decoder(_Snapshot)


class Parked:
    """Events of one user that wait for the user API, in the order they came."""

    __slots__ = ("deadline_ms", "nbytes", "records")

    def __init__(self, deadline_ms: int) -> None:
        self.deadline_ms = deadline_ms
        self.records: list[tuple[str, Record]] = []
        self.nbytes = 0

    def add(self, topic: str, record: Record) -> None:
        """One more."""
        self.records.append((topic, record))
        self.nbytes += _RECORD_OVERHEAD_BYTES + len(record.value)


class ShardState:
    """Users of one shard, longest idle first, the events that wait, longest waiting first, and what rules remember.

    ``rules`` is the rule set that was published last, None while there is only the one that the job was launched with.
    ``stream_due`` and ``clock_due``: whose rule state is due at which stream and which processing time.
    ``awaiting_profile`` are the users that a sequence waits for. ``deliveries`` are webhooks that have not ended,
    ``disabled`` the destinations that get none.
    """

    __slots__ = (
        "_in_order",
        "_newest_ms",
        "awaiting_profile",
        "clock_due",
        "deliveries",
        "disabled",
        "history_size",
        "nbytes",
        "parked",
        "rule_states",
        "rules",
        "stream_due",
        "users",
    )

    def __init__(self, history_size: int) -> None:
        self.history_size = history_size
        self.users: OrderedDict[str, UserState] = OrderedDict()
        self.parked: dict[str, Parked] = {}
        self.rule_states: dict[str, RuleState] = {}
        self.rules: StoredRules | None = None
        self.awaiting_profile: dict[str, None] = {}
        self.deliveries: dict[str, DeliveryQueue] = {}
        self.disabled: dict[str, None] = {}
        self.stream_due = DueIndex()
        self.clock_due = DueIndex()
        # Kept up to date by apply(), so that the state cache can ask without walking the users.
        self.nbytes = 1000
        self._in_order = True
        self._newest_ms = 0  # the last time anybody was seen

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep."""
        of_users = self.users or self.parked or self.rule_states or self.deliveries
        return not (of_users or self.rules or self.disabled)

    @property
    def packed_bytes(self) -> int:
        """What a journal of nothing but this view would take, uncompressed, roughly."""
        return self.nbytes - (OVERHEAD_BYTES - 100) * len(self.users)

    def apply(self, now_ms: int, fact: Fact) -> None:
        """Change the view by one fact that was decided at ``now_ms``."""
        kind = fact[0]
        if kind == OBSERVED:
            self._observe(now_ms, *fact[1:])
        elif kind == PARKED:
            _, user_id, deadline_ms, topic, record = fact
            self._park(user_id, deadline_ms, topic, record)
        elif kind == UNPARKED:
            self._unpark(fact[1])
        elif kind == LOADED:
            self._load(now_ms, *fact[1:])
        elif kind == UPDATED:
            self._update(now_ms, *fact[1:])
        elif kind == TOUCHED:
            self._touch(now_ms, fact[1])
        elif kind in (DROPPED, CUT):
            self._shorten(*fact)
        elif kind == SWEPT:
            self._sweep(fact[1])
        elif kind == FORGOTTEN:
            self._remove(fact[1])
            self._unpark(fact[1])
            if fact[2:] == (True,):
                self._put_rule_state(fact[1], RuleState())
                self._put_deliveries(fact[1], DeliveryQueue())
        elif kind == MOVED:
            self._move(*fact[1:])
        elif kind in _OF_DELIVERIES:
            self._deliver(*fact)
        elif kind in _OF_RULES:
            self._remember(*fact)
        elif kind == RULES:
            self._replace_rules(fact[1], fact[2])
        elif kind == SWITCHED:
            self.disabled.pop(fact[1], None)
            if not fact[2]:
                self.disabled[fact[1]] = None
        else:
            raise ValueError(
                f"journal fact {kind}: this worker knows 0 to {_NEWEST_FACT}; the state is of a newer release"
            )

    # Users

    def _observe(self, now_ms: int, user_id: str, row: Row, visit: Visit | None) -> None:
        user = self.users.get(user_id)
        if user is None:
            return
        before = user.history.nbytes
        user.history.add(row)
        self.nbytes += user.history.nbytes - before
        if visit is not None:
            user.visit = visit
        self._seen(user_id, user, now_ms)

    def _seen(self, user_id: str, user: UserState, now_ms: int) -> None:
        if now_ms < self._newest_ms:
            self._in_order = False  # the clock was set back
        else:
            self._newest_ms = now_ms
        user.last_seen_ms = now_ms
        self.users.move_to_end(user_id)

    def _load(
        self, now_ms: int, user_id: str, enrichment: str, profile_json: bytes, visit: Visit | None, rows: list[Row]
    ) -> None:
        history = History(self.history_size)
        history.merge(rows)
        user = UserState(now_ms, enrichment, profile_json, history)
        user.visit = visit
        _asked(user, now_ms, enrichment)
        self._put(user_id, user)
        self._seen(user_id, user, now_ms)

    def _update(
        self,
        now_ms: int,
        user_id: str,
        enrichment: str | None,
        profile_json: bytes,
        visit: Visit | None,
        rows: list[Row],
    ) -> None:
        user = self.users.get(user_id)
        if user is None:
            return
        _asked(user, now_ms, enrichment or UNAVAILABLE)
        if enrichment is None:
            return
        before = user.nbytes
        user.replace_profile(enrichment, profile_json)
        if visit is not None:
            user.visit = visit
        user.history.merge(rows)
        self.nbytes += user.nbytes - before

    def _touch(self, now_ms: int, user_id: str) -> None:
        user = self.users.get(user_id)
        if user is not None:
            self._seen(user_id, user, now_ms)

    def _shorten(self, kind: int, user_id: str, what: Any) -> None:
        user = self.users.get(user_id)
        if user is None:
            return
        before = user.history.nbytes
        if kind == DROPPED:
            user.history.drop(what)
        else:
            user.history.cut(what)
        self.nbytes += user.history.nbytes - before

    def _sweep(self, cutoff_ms: int) -> None:
        self.put_in_order()
        while self.users and next(iter(self.users.values())).last_seen_ms <= cutoff_ms:
            self.nbytes -= self.users.popitem(last=False)[1].nbytes

    def _put(self, user_id: str, user: UserState) -> None:
        before = self.users.get(user_id)
        self.nbytes += user.nbytes - (before.nbytes if before is not None else 0)
        self.users[user_id] = user

    def _remove(self, user_id: str) -> None:
        user = self.users.pop(user_id, None)
        if user is not None:
            self.nbytes -= user.nbytes

    # Waiting events

    def _park(self, user_id: str, deadline_ms: int, topic: str, record: Record) -> None:
        waiting = self.parked.get(user_id)
        if waiting is None:
            if self.parked and deadline_ms < next(reversed(self.parked.values())).deadline_ms:
                self._in_order = False
            waiting = self.parked[user_id] = Parked(deadline_ms)
        before = waiting.nbytes
        waiting.add(topic, record)
        self.nbytes += waiting.nbytes - before

    def _unpark(self, user_id: str) -> None:
        waiting = self.parked.pop(user_id, None)
        if waiting is not None:
            self.nbytes -= waiting.nbytes

    # Rules, and what they remember

    def _replace_rules(self, number: int, record: bytes) -> None:
        self.nbytes += len(record) - (0 if self.rules is None else len(self.rules.record))
        self.rules = StoredRules(number, record)

    def packed_of_shard(self) -> list[Fact]:
        """Facts of what the shard keeps that is no user's, for a journal written anew."""
        facts: list[Fact] = [] if self.rules is None else [(RULES, self.rules.number, self.rules.record)]
        return facts + [(SWITCHED, name, False) for name in self.disabled]

    def rule_state(self, user_id: str) -> RuleState:
        """To read only."""
        return self.rule_states.get(user_id, NOTHING)

    def _remember(self, kind: int, user_id: str, *what: Any) -> None:
        state = self.rule_states.get(user_id) or RuleState()
        before = state.nbytes if user_id in self.rule_states else 0
        if kind == FIRED:
            state.fire(*what)
        elif kind == BEGUN:
            state.begin(*what)
        elif kind == ENDED:
            state.end(*what)
        elif kind == HELD:
            state.hold(*what)
        elif kind == RELEASED:
            state.release(*what)
        elif kind == LAPSED:
            state.lapse(*what)
        elif kind == UNFIRED:
            state.forget_firings(*what)
        else:
            (state.awaited_ms,) = what
        self._keep(user_id, state, before)

    def _put_rule_state(self, user_id: str, state: RuleState) -> None:
        before = self.rule_states.get(user_id)
        self._keep(user_id, state, before.nbytes if before is not None else 0)

    def _keep(self, user_id: str, state: RuleState, before_bytes: int) -> None:
        """Note that a state has changed; it is dropped when there is nothing in it."""
        self.nbytes -= before_bytes
        if state.is_empty:
            self.rule_states.pop(user_id, None)
            self.awaiting_profile.pop(user_id, None)
            self.stream_due.set(user_id, None)
            self.clock_due.set(user_id, None)
            return
        self.nbytes += state.nbytes
        self.rule_states[user_id] = state
        if state.awaited_ms:
            self.awaiting_profile[user_id] = None
        else:
            self.awaiting_profile.pop(user_id, None)
        self.stream_due.set(user_id, state.stream_due_ms())
        self.clock_due.set(user_id, state.clock_due_ms())

    # Webhooks

    def _deliver(self, kind: int, user_id: str, what: Any) -> None:
        deliveries = self.deliveries.get(user_id) or DeliveryQueue()
        before = deliveries.nbytes if user_id in self.deliveries else 0
        if kind == QUEUED:
            deliveries.add(what)
        elif kind == RESCHEDULED:
            deliveries.replace(what)
        else:
            deliveries.remove(what)
        self._keep_deliveries(user_id, deliveries, before)

    def _put_deliveries(self, user_id: str, deliveries: DeliveryQueue) -> None:
        before = self.deliveries.get(user_id)
        self._keep_deliveries(user_id, deliveries, before.nbytes if before is not None else 0)

    def _keep_deliveries(self, user_id: str, deliveries: DeliveryQueue, before_bytes: int) -> None:
        self.nbytes -= before_bytes
        if deliveries.is_empty:
            self.deliveries.pop(user_id, None)
            return
        self.nbytes += deliveries.nbytes
        self.deliveries[user_id] = deliveries

    # The journal written anew

    def packed(self, user_ids: Iterable[str], max_bytes: int) -> list[Fact]:
        """``MOVED`` facts for the next users of ``user_ids``, until they make up ``max_bytes``."""
        facts: list[Fact] = []
        room = max_bytes
        for user_id in user_ids:
            user, waiting = self.users.get(user_id), self.parked.get(user_id)
            rule_state, deliveries = self.rule_states.get(user_id), self.deliveries.get(user_id)
            if user is None and waiting is None and rule_state is None and deliveries is None:
                continue
            if user is not None:
                before = user.nbytes
                packed = user.pack(user_id)
                self.nbytes += user.nbytes - before  # packing drops rows that nobody sees any more
                room -= user.nbytes
            if waiting is not None:
                room -= waiting.nbytes
            if rule_state is not None:
                room -= rule_state.nbytes
            if deliveries is not None:
                room -= deliveries.nbytes
            facts.append(
                (
                    MOVED,
                    None if user is None else packed,
                    None if waiting is None else PackedParked(waiting.deadline_ms, waiting.records, user_id),
                    None if rule_state is None else rule_state.pack(user_id),
                    None if deliveries is None else deliveries.pack(user_id),
                )
            )
            if room <= 0:
                break
        return facts

    def _move(
        self,
        packed: PackedUser | None,
        waiting: PackedParked | None,
        rule_state: PackedRuleState | None = None,
        deliveries: PackedDeliveryQueue | None = None,
    ) -> None:
        if packed is not None:
            if packed.user_id not in self.users and packed.last_seen_ms < self._newest_ms:
                self._in_order = False
            self._newest_ms = max(self._newest_ms, packed.last_seen_ms)
            self._put(packed.user_id, UserState.unpack(packed, self.history_size))
        if waiting is not None:
            self._unpark(waiting.user_id)
            for topic, record in waiting.records:
                self._park(waiting.user_id, waiting.deadline_ms, topic, record)
        if rule_state is not None:
            self._put_rule_state(rule_state.user_id, RuleState.unpack(rule_state))
        if deliveries is not None:
            self._put_deliveries(deliveries.user_id, DeliveryQueue.unpack(deliveries))

    def longest_idle(self) -> UserState | None:
        """The user whose TTL ends first."""
        self.put_in_order()
        return next(iter(self.users.values()), None)

    def put_in_order(self) -> None:
        """Put the longest idle and the longest waiting first; only replays and a clock set back upset that."""
        if not self._in_order:
            self.users = OrderedDict(sorted(self.users.items(), key=lambda item: item[1].last_seen_ms))
            self.parked = dict(sorted(self.parked.items(), key=lambda item: item[1].deadline_ms))
            self._in_order = True

    @classmethod
    def of_snapshot(cls, snapshot: bytes, history_size: int) -> ShardState:
        """The view that a journal of version 1 starts with; empty for empty bytes.

        Raises:
            ValueError: the snapshot is of a release newer than this one.
        """
        view = cls(history_size)
        if not snapshot:
            return view
        packed = _snapshot_decoder.decode(snapshot)
        if packed.version != 1:
            raise ValueError(f"snapshot version {packed.version}: this worker reads 1")
        for user in packed.users:
            view._move(user, None)
        for user_id, waiting in packed.parked.items():
            for topic, record in waiting.records:
                view._park(user_id, waiting.deadline_ms, topic, record)
        return view


def _asked(user: UserState, now_ms: int, enrichment: str) -> None:
    """Note how asking for a user ended."""
    if enrichment in (FETCHED, UNKNOWN):
        user.fetched_ms, user.failed_ms = now_ms, 0
    elif enrichment == UNAVAILABLE:
        user.failed_ms = now_ms
