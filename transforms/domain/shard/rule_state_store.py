"""What rules remember of the users of one shard, and when something of it is due."""

from __future__ import annotations

from transforms.domain.base.due_index import DueIndex
from transforms.domain.rules.state import NOTHING, RuleState
from transforms.domain.shard.sized_store import SizedStore


class RuleStateStore(SizedStore[RuleState]):
    """Rule state by user.

    Attributes:
        stream_due: by user, the stream time at which rule state is due.
        clock_due: by user, the processing time at which a held action is due.
        waiting_for_profile: users whose rule state waits for the user API's answer.
    """

    __slots__ = ("clock_due", "stream_due", "waiting_for_profile")

    def __init__(self) -> None:
        super().__init__(RuleState)
        self.stream_due = DueIndex()
        self.clock_due = DueIndex()
        self.waiting_for_profile: dict[str, None] = {}

    def of(self, user_id: str) -> RuleState:
        """The rule state of a user, only to be read."""
        return self.get(user_id, NOTHING)

    def forget(self, user_id: str) -> None:
        """Remove the rule state of a user."""
        super().forget(user_id)
        self._index(user_id, NOTHING)

    def _keep(self, user_id: str, value: RuleState) -> None:
        super()._keep(user_id, value)
        self._index(user_id, value)

    def _index(self, user_id: str, state: RuleState) -> None:
        if state.profile_wait_ms and not state.is_empty:
            self.waiting_for_profile[user_id] = None
        else:
            self.waiting_for_profile.pop(user_id, None)
        self.stream_due.set(user_id, state.stream_due_ms())
        self.clock_due.set(user_id, state.clock_due_ms())
