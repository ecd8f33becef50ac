"""Mappings by user that keep the size of their values: delivery queues, and what rules remember."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from transforms.domain.base.due_index import DueIndex
from transforms.domain.rules.state import NOTHING, RuleState
from transforms.domain.webhooks.delivery_queue import DeliveryQueue

T = TypeVar("T", DeliveryQueue, RuleState)


class SizedStore(dict[str, T], Generic[T]):
    """Values by user. Without arguments the value's class makes an empty one; a user whose value is empty has no entry.

    Read it as a mapping. Only its methods change it, because they keep ``nbytes`` up to date.
    """

    __slots__ = ("_empty", "nbytes")

    def __init__(self, empty: type[T]) -> None:
        super().__init__()
        self._empty: type[T] = empty
        self.nbytes = 0

    def change(self, change: Callable[..., None], user_id: str, *args: object) -> None:
        """Change a user's value by ``change``, one of its methods, called with ``args``."""
        value = self.get(user_id)
        if value is None:
            value = self._empty()
        else:
            self.nbytes -= value.nbytes
        change(value, *args)
        self._keep(user_id, value)

    def put(self, user_id: str, value: T) -> None:
        """Replace a user's value."""
        self.forget(user_id)
        self._keep(user_id, value)

    def forget(self, user_id: str) -> None:
        """Remove a user's value."""
        value = self.pop(user_id, None)
        if value is not None:
            self.nbytes -= value.nbytes

    def _keep(self, user_id: str, value: T) -> None:
        if value.is_empty:
            self.pop(user_id, None)
        else:
            self.nbytes += value.nbytes
            self[user_id] = value


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
        if state.waits_for_profile:
            self.waiting_for_profile[user_id] = None
        else:
            self.waiting_for_profile.pop(user_id, None)
        self.stream_due.set(user_id, state.stream_due_ms())
        self.clock_due.set(user_id, state.clock_due_ms())


class DeliveryStore(SizedStore[DeliveryQueue]):
    """Delivery queues by user.

    Attributes:
        expiry_due: by user, the processing time at which the first delivery expires.
    """

    __slots__ = ("expiry_due",)

    def __init__(self) -> None:
        super().__init__(DeliveryQueue)
        self.expiry_due = DueIndex()

    def forget(self, user_id: str) -> None:
        """Remove the deliveries of a user."""
        super().forget(user_id)
        self.expiry_due.set(user_id, None)

    def _keep(self, user_id: str, value: DeliveryQueue) -> None:
        super()._keep(user_id, value)
        self.expiry_due.set(user_id, value.expiry_due_ms())
