"""The folded state of one user shard: stores, and the one dispatch from a fact to the store that it changes.

Only ``ShardState.apply`` changes a state, live and on replay alike, so that replaying a journal gives the state that
wrote it.

A journal that is being rewritten (``journal.py``) may have facts about a user before the ``UserMoved`` that says what
the user's state was at that time. So facts about unknown users are no error, and ``UserMoved`` replaces what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from transforms.domain.rules.sets import StoredRules
from transforms.domain.rules.state import GROUP, RuleState
from transforms.domain.shard import facts
from transforms.domain.shard.facts import Fact, PackedParkedEvents
from transforms.domain.shard.parked_store import ParkedStore
from transforms.domain.shard.sized_store import DeliveryStore, RuleStateStore
from transforms.domain.shard.user_store import UserStore
from transforms.domain.users.user import OVERHEAD_BYTES, PackedUser
from transforms.domain.webhooks.delivery_queue import DeliveryQueue
from transforms.domain.webhooks.ledger import LedgerPosition

_OVERHEAD_BYTES: Final = 1000


class _Snapshot(msgspec.Struct, array_like=True):
    """What journals of version 1 start with."""

    version: int
    users: list[PackedUser]
    parked: dict[str, PackedParkedEvents]


_snapshot_decoder = msgspec.msgpack.Decoder(_Snapshot)


class ShardState:
    """Everything that a shard keeps.

    Attributes:
        users: the users whose TTL has not ended.
        parked: events that wait for the user API, by user.
        rule_states: what rules remember, by user; it outlives the user's TTL.
        deliveries: webhooks that have not ended, by user.
        rules: the rule set that was published last; None while there is only the one that the job was launched with.
        disabled: the destinations that get no webhooks.
        ledger: how far the state contains the ledger of deliveries; None without one.
    """

    __slots__ = ("deliveries", "disabled", "ledger", "parked", "rule_states", "rules", "users")

    def __init__(self, history_size: int) -> None:
        self.users = UserStore(history_size)
        self.parked = ParkedStore()
        self.rule_states = RuleStateStore()
        self.deliveries = DeliveryStore()
        self.rules: StoredRules | None = None
        self.disabled: dict[str, None] = {}
        self.ledger: LedgerPosition | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep."""
        of_users = self.users or self.parked or self.rule_states or self.deliveries
        return not (of_users or self.rules or self.disabled or self.ledger)

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        rules = 0 if self.rules is None else len(self.rules.record)
        stores = self.users.nbytes + self.parked.nbytes + self.rule_states.nbytes + self.deliveries.nbytes
        return _OVERHEAD_BYTES + rules + stores

    @property
    def packed_bytes(self) -> int:
        """Size of a journal of nothing but this state, uncompressed, roughly."""
        return self.nbytes - (OVERHEAD_BYTES - 100) * len(self.users)

    def apply(self, now_ms: int, fact: Fact) -> None:
        """Change the state by one fact that was decided at ``now_ms``."""
        _HANDLERS[type(fact)](self, now_ms, fact)

    def holds(self, user_id: str) -> bool:
        """Whether the shard keeps anything of a user."""
        return any(user_id in store for store in (self.users, self.parked, self.rule_states, self.deliveries))

    def put_in_order(self) -> None:
        """Put the longest idle users and the earliest deadlines first."""
        self.users.put_in_order()
        self.parked.put_in_order()

    # What facts do that concern more than one store

    def _forget(self, fact: facts.UserForgotten) -> None:
        self.users.forget(fact.user_id)
        self.parked.unpark(fact.user_id)
        if fact.everything:
            self.rule_states.forget(fact.user_id)
            self.deliveries.forget(fact.user_id)

    def _move(self, fact: facts.UserMoved) -> None:
        if fact.user is not None:
            self.users.restore(fact.user)
        if fact.parked is not None:
            self.parked.restore(fact.parked)
        if fact.rule_state is not None:
            self.rule_states.put(fact.rule_state.user_id, RuleState.unpack(fact.rule_state))
        if fact.deliveries is not None:
            self.deliveries.put(fact.deliveries.user_id, DeliveryQueue.unpack(fact.deliveries))

    def _replace_rules(self, fact: facts.RuleSetReplaced) -> None:
        self.rules = StoredRules(fact.number, fact.record)

    def _forget_group(self, group: str) -> None:
        for user_id, rule_state in list(self.rule_states.items()):
            if (group, GROUP) in rule_state.fired:
                self.rule_states.change(RuleState.forget_firings, user_id, group, GROUP)

    def _switch(self, fact: facts.DestinationSwitched) -> None:
        self.disabled.pop(fact.destination, None)
        if not fact.is_enabled:
            self.disabled[fact.destination] = None

    def _read_ledger(self, fact: facts.LedgerRead) -> None:
        self.ledger = LedgerPosition(fact.topic, fact.offset)

    # The journal, rewritten

    def shard_facts(self) -> list[Fact]:
        """Facts of what the shard keeps that belongs to no user."""
        rules: list[Fact] = [] if self.rules is None else [facts.RuleSetReplaced(self.rules.number, self.rules.record)]
        ledger: list[Fact] = [] if self.ledger is None else [facts.LedgerRead(self.ledger.topic, self.ledger.offset)]
        return rules + [facts.DestinationSwitched(name, False) for name in self.disabled] + ledger

    def moves(self, user_ids: Iterable[str], max_bytes: int) -> list[Fact]:
        """A ``UserMoved`` for each of the next users of ``user_ids``, until they make up ``max_bytes``."""
        moved: list[Fact] = []
        room = max_bytes
        for user_id in user_ids:
            rule_state, deliveries = self.rule_states.get(user_id), self.deliveries.get(user_id)
            if not self.holds(user_id):
                continue
            fact = facts.UserMoved(
                self.users.pack(user_id),
                self.parked.pack(user_id),
                None if rule_state is None else rule_state.pack(user_id),
                None if deliveries is None else deliveries.pack(user_id),
            )
            kept = (self.users.get(user_id), self.parked.get(user_id), rule_state, deliveries)
            room -= sum(part.nbytes for part in kept if part is not None)
            moved.append(fact)
            if room <= 0:
                break
        return moved

    @classmethod
    def of_snapshot(cls, snapshot: bytes, history_size: int) -> ShardState:
        """The state that a journal of version 1 starts with; empty for empty bytes.

        Raises:
            ValueError: the snapshot is of a release newer than this one.
        """
        state = cls(history_size)
        if not snapshot:
            return state
        packed = _snapshot_decoder.decode(snapshot)
        if packed.version != 1:
            raise ValueError(f"snapshot version {packed.version}: this worker reads 1")
        for user in packed.users:
            state.users.restore(user)
        for user_id, waiting in packed.parked.items():
            state.parked.restore(msgspec.structs.replace(waiting, user_id=user_id))
        return state


_Handler = Callable[[ShardState, int, Any], None]


def _rule_state(change: Callable[..., None]) -> _Handler:
    """A handler that gives a method of ``RuleState`` the fields of the fact that follow the user id."""
    return lambda state, _, fact: state.rule_states.change(change, *msgspec.structs.astuple(fact))


def _deliveries(change: Callable[..., None]) -> _Handler:
    """A handler that gives a method of ``DeliveryQueue`` the fields of the fact that follow the user id."""
    return lambda state, _, fact: state.deliveries.change(change, *msgspec.structs.astuple(fact))


_HANDLERS: Final[dict[type[Fact], _Handler]] = {
    facts.EventObserved: lambda state, now_ms, fact: state.users.observe(now_ms, fact),
    facts.UserLoaded: lambda state, now_ms, fact: state.users.load(now_ms, fact),
    facts.UserUpdated: lambda state, now_ms, fact: state.users.fold_answer(now_ms, fact),
    facts.UserSeen: lambda state, now_ms, fact: state.users.see(now_ms, fact.user_id),
    facts.IdleUsersForgotten: lambda state, _, fact: state.users.forget_idle(fact.cutoff_ms),
    facts.UserForgotten: lambda state, _, fact: state._forget(fact),
    facts.UserMoved: lambda state, _, fact: state._move(fact),
    facts.HistoryRowDropped: lambda state, _, fact: state.users.drop_row(fact.user_id, fact.event_id),
    facts.HistoryCut: lambda state, _, fact: state.users.cut_history(fact.user_id, fact.max_bytes),
    facts.EventParked: lambda state, _, fact: state.parked.park(*msgspec.structs.astuple(fact)),
    facts.EventsUnparked: lambda state, _, fact: state.parked.unpark(fact.user_id),
    facts.RuleFired: _rule_state(RuleState.fire),
    facts.FiringsExpired: _rule_state(RuleState.expire_firings),
    facts.FiringsForgotten: _rule_state(RuleState.forget_firings),
    facts.SequenceBegun: _rule_state(RuleState.begin),
    facts.SequenceEnded: _rule_state(RuleState.end),
    facts.ActionHeld: _rule_state(RuleState.hold),
    facts.ActionReleased: _rule_state(RuleState.release),
    facts.ProfileWaitSet: _rule_state(RuleState.set_profile_wait),
    facts.SuppressionSet: _rule_state(RuleState.suppress),
    facts.SuppressionEnded: _rule_state(RuleState.unsuppress),
    facts.GroupForgotten: lambda state, _, fact: state._forget_group(fact.group),
    facts.RuleSetReplaced: lambda state, _, fact: state._replace_rules(fact),
    facts.DeliveryQueued: _deliveries(DeliveryQueue.add),
    facts.DeliveryRescheduled: _deliveries(DeliveryQueue.replace),
    facts.DeliverySettled: _deliveries(DeliveryQueue.remove),
    facts.DestinationSwitched: lambda state, _, fact: state._switch(fact),
    facts.LedgerRead: lambda state, _, fact: state._read_ledger(fact),
}
