"""The folded state of one user shard, and the facts that change it.

A fact is a tuple ``(kind, …)`` of MessagePack types. ``View.apply`` is the only thing that changes a view, live and on
replay alike, so that replaying a journal gives the view that wrote it. Facts hold outcomes, never inputs to be computed
again: code that changes its mind later must not change what an old journal says.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import msgspec

from transforms.domain.batches import Record
from transforms.domain.history import History, Row
from transforms.domain.users import UserState, Visit

Fact = tuple[Any, ...]

# The numbers are in every journal that was ever written: never reuse one.
OBSERVED: Final = 0  # user_id, row, visit | None (unchanged)
LOADED: Final = 1  # user_id, enrichment, profile_json, visit | None, rows
PARKED: Final = 2  # user_id, deadline_ms, topic, record
UNPARKED: Final = 3  # user_id
SWEPT: Final = 4  # cutoff_ms: everybody not seen since is forgotten
FORGOTTEN: Final = 5  # user_id

_SNAPSHOT_VERSION: Final = 1

_encode = msgspec.msgpack.encode


class Parked(msgspec.Struct, array_like=True):
    """Events of one user that wait for the user API, in the order they came."""

    deadline_ms: int
    records: list[tuple[str, Record]]


class _PackedUser(msgspec.Struct, array_like=True):
    user_id: str
    last_seen_ms: int
    enrichment: str
    profile_json: bytes
    visit: Visit | None
    history: tuple[int, int, bytes]


class _Snapshot(msgspec.Struct, array_like=True):
    version: int
    users: list[_PackedUser]
    parked: dict[str, Parked]


_snapshot_decoder = msgspec.msgpack.Decoder(_Snapshot)


class View:
    """Users of one shard, longest idle first, and the events that wait."""

    __slots__ = ("history_size", "nbytes", "parked", "users")

    def __init__(self, history_size: int) -> None:
        self.history_size = history_size
        self.users: OrderedDict[str, UserState] = OrderedDict()
        self.parked: dict[str, Parked] = {}
        # Kept up to date by apply(), so that the state cache can ask without walking the users.
        self.nbytes = 1000

    def apply(self, now_ms: int, fact: Fact) -> None:
        """Change the view by one fact that was decided at ``now_ms``."""
        kind = fact[0]
        if kind == OBSERVED:
            self._observe(now_ms, fact[1], fact[2], fact[3])
        elif kind == LOADED:
            self._load(now_ms, *fact[1:])
        elif kind == PARKED:
            _, user_id, deadline_ms, topic, record = fact
            self.parked.setdefault(user_id, Parked(deadline_ms, [])).records.append((topic, record))
            self.nbytes += 300 + len(record.value)
        elif kind == UNPARKED:
            self.nbytes -= sum(300 + len(record.value) for _, record in self.parked.pop(fact[1]).records)
        elif kind == SWEPT:
            while self.users and next(iter(self.users.values())).last_seen_ms <= fact[1]:
                self.nbytes -= self.users.popitem(last=False)[1].nbytes
        elif kind == FORGOTTEN:
            self._forget(fact[1])
        else:
            raise ValueError(
                f"journal fact {kind}: this worker knows 0 to {FORGOTTEN}; the state is of a newer release"
            )

    def _observe(self, now_ms: int, user_id: str, row: Row, visit: Visit | None) -> None:
        user = self.users[user_id]
        before = user.history.nbytes
        user.history.add(row)
        self.nbytes += user.history.nbytes - before
        if visit is not None:
            user.visit = visit
        user.last_seen_ms = now_ms
        self.users.move_to_end(user_id)

    def _load(
        self, now_ms: int, user_id: str, enrichment: str, profile_json: bytes, visit: Visit | None, rows: list[Row]
    ) -> None:
        history = History(self.history_size)
        history.merge(rows)
        user = UserState(now_ms, enrichment, profile_json, visit, history)
        self.users[user_id] = user
        self.users.move_to_end(user_id)
        self.nbytes += user.nbytes

    def _forget(self, user_id: str) -> None:
        user = self.users.pop(user_id, None)
        if user is not None:
            self.nbytes -= user.nbytes
        if user_id in self.parked:
            self.apply(0, (UNPARKED, user_id))

    def snapshot(self) -> bytes:
        """The whole view as bytes."""
        users = []
        for user_id, user in self.users.items():
            before = user.nbytes
            history = user.history.pack()
            self.nbytes += user.nbytes - before  # packing drops rows that nobody sees any more
            users.append(
                _PackedUser(user_id, user.last_seen_ms, user.enrichment, user.profile_json, user.visit, history)
            )
        return _encode(_Snapshot(_SNAPSHOT_VERSION, users, self.parked))

    @classmethod
    def restore(cls, snapshot: bytes, history_size: int) -> View:
        """The view as it was when ``snapshot`` was taken; empty for empty bytes.

        Raises:
            ValueError: the snapshot is of a release newer than this one.
        """
        view = cls(history_size)
        if not snapshot:
            return view
        packed = _snapshot_decoder.decode(snapshot)
        if packed.version != _SNAPSHOT_VERSION:
            raise ValueError(f"snapshot version {packed.version}: this worker reads {_SNAPSHOT_VERSION}")
        for one in packed.users:
            history = History.unpack(history_size, one.history)
            user = UserState(one.last_seen_ms, one.enrichment, one.profile_json, one.visit, history)
            view.users[one.user_id] = user
            view.nbytes += user.nbytes
        for user_id, waiting in packed.parked.items():
            for topic, record in waiting.records:
                view.apply(0, (PARKED, user_id, waiting.deadline_ms, topic, record))
        return view
