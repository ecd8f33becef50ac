"""A mapping by user that keeps the size of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """A user's value that knows its size. Without arguments its class makes an empty one."""

    nbytes: int

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep."""


T = TypeVar("T", bound=Sized)


class SizedStore(dict[str, T], Generic[T]):
    """Values by user; a user whose value is empty has no entry.

    Read it as a mapping. Only its methods change it, because they keep ``nbytes`` up to date.
    """

    __slots__ = ("_make_empty", "nbytes")

    def __init__(self, make_empty: Callable[[], T]) -> None:
        super().__init__()
        self._make_empty = make_empty
        self.nbytes = 0

    def change(self, change: Callable[..., None], user_id: str, *args: object) -> None:
        """Change a user's value by ``change``, one of its methods, called with ``args``."""
        value = self.get(user_id)
        if value is None:
            value = self._make_empty()
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
