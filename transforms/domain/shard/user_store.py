"""The users of one shard and what they take in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from transforms.domain.shard.facts import EventObserved, UserLoaded, UserUpdated
from transforms.domain.users.history import History
from transforms.domain.users.user import FETCHED, UNAVAILABLE, UNKNOWN, PackedUser, UserState


class UserStore(OrderedDict[str, UserState]):
    """Users by id, longest idle first once ``put_in_order`` was called.

    Read it as a mapping. Only its methods change it, because they keep ``nbytes`` up to date. Facts about a user who is
    not there change nothing: a journal that is being rewritten has facts about users who come with a later
    ``UserMoved``.
    """

    def __init__(self, history_size: int) -> None:
        super().__init__()
        self.history_size = history_size
        self.nbytes = 0
        self._in_order = True
        self._newest_ms = 0  # the latest time at which a user was seen

    def observe(self, now_ms: int, fact: EventObserved) -> None:
        """Add an event to its user's history."""
        user = self.get(fact.user_id)
        if user is None:
            return
        self.nbytes += user.history.add(fact.row)
        if fact.visit is not None:
            user.visit = fact.visit
        if user.listed:
            before = user.nbytes
            user.forget_listed(fact.row.event_id)
            self.nbytes += user.nbytes - before
        self._mark_seen(now_ms, fact.user_id, user)

    def load(self, now_ms: int, fact: UserLoaded) -> None:
        """Add a new user, or replace one."""
        if fact.packed is None:
            history = History(self.history_size)
            history.merge(fact.rows)
        else:
            history = History.unpack(self.history_size, fact.packed)
        user = UserState(now_ms, fact.enrichment, fact.profile_json, history)
        user.visit = fact.visit
        user.stream_since_ms, user.listed = fact.stream_since_ms, frozenset(fact.listed)
        _note_fetch(user, now_ms, fact.enrichment)
        self._put(fact.user_id, user)
        self._mark_seen(now_ms, fact.user_id, user)

    def fold_answer(self, now_ms: int, fact: UserUpdated) -> None:
        """Fold the user API's answer into a known user; a failed request only leaves its time."""
        user = self.get(fact.user_id)
        if user is None:
            return
        _note_fetch(user, now_ms, fact.enrichment or UNAVAILABLE)
        if fact.enrichment is None:
            return
        before = user.nbytes
        user.replace_profile(fact.enrichment, fact.profile_json)
        if fact.visit is not None:
            user.visit = fact.visit
            user.listed = frozenset(fact.listed)
        user.history.merge(fact.rows)
        self.nbytes += user.nbytes - before

    def see(self, now_ms: int, user_id: str) -> None:
        """The user sent an event: the TTL starts again."""
        user = self.get(user_id)
        if user is not None:
            self._mark_seen(now_ms, user_id, user)

    def drop_row(self, user_id: str, event_id: str) -> None:
        """Remove one event from a history."""
        self._shorten(user_id, lambda history: history.drop(event_id))

    def cut_history(self, user_id: str, max_bytes: int) -> None:
        """Remove the oldest rows of a history until it has at most ``max_bytes``."""
        self._shorten(user_id, lambda history: history.cut(max_bytes))

    def forget(self, user_id: str) -> None:
        """Remove a user."""
        user = self.pop(user_id, None)
        if user is not None:
            self.nbytes -= user.nbytes

    def forget_idle(self, cutoff_ms: int) -> None:
        """Remove the users who were last seen at ``cutoff_ms`` or before."""
        while (user := self.longest_idle()) is not None and user.last_seen_ms <= cutoff_ms:
            self.nbytes -= self.popitem(last=False)[1].nbytes

    def longest_idle(self) -> UserState | None:
        """The user whose TTL ends first."""
        self.put_in_order()
        return next(iter(self.values()), None)

    def put_in_order(self) -> None:
        """Put the longest idle first; only replays and a clock that was set back change the order."""
        if not self._in_order:
            for user_id, _ in sorted(self.items(), key=lambda item: item[1].last_seen_ms):
                self.move_to_end(user_id)
            self._in_order = True

    def pack(self, user_id: str) -> PackedUser | None:
        """A user for the journal; None: there is none."""
        user = self.get(user_id)
        if user is None:
            return None
        before = user.nbytes
        packed = user.pack(user_id)
        self.nbytes += user.nbytes - before  # packing drops rows that no reader sees any more
        return packed

    def restore(self, packed: PackedUser) -> None:
        """Put a packed user in, in place of the one that may be there."""
        if packed.user_id not in self and packed.last_seen_ms < self._newest_ms:
            self._in_order = False
        self._newest_ms = max(self._newest_ms, packed.last_seen_ms)
        self._put(packed.user_id, UserState.unpack(packed, self.history_size))

    def _put(self, user_id: str, user: UserState) -> None:
        before = self.get(user_id)
        self.nbytes += user.nbytes - (before.nbytes if before is not None else 0)
        self[user_id] = user

    def _shorten(self, user_id: str, shorten: Callable[[History], object]) -> None:
        user = self.get(user_id)
        if user is not None:
            before = user.history.nbytes
            shorten(user.history)
            self.nbytes += user.history.nbytes - before

    def _mark_seen(self, now_ms: int, user_id: str, user: UserState) -> None:
        if now_ms < self._newest_ms:
            self._in_order = False  # the clock was set back
        else:
            self._newest_ms = now_ms
        user.last_seen_ms = now_ms
        self.move_to_end(user_id)


def _note_fetch(user: UserState, now_ms: int, enrichment: str) -> None:
    """Note when the user API answered, or failed to."""
    if enrichment in (FETCHED, UNKNOWN):
        user.fetched_ms, user.failed_ms = now_ms, 0
    elif enrichment == UNAVAILABLE:
        user.failed_ms = now_ms
