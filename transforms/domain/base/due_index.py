"""Who is due when."""

from __future__ import annotations

import heapq


class DueIndex:
    """A time, or none, for each of many; the earliest is found quickly.

    A heap in which entries stay behind when their owner's time changes: they are skipped when they come up.
    """

    __slots__ = ("_due_ms", "_heap")

    def __init__(self) -> None:
        self._due_ms: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def set(self, name: str, due_ms: int | None) -> None:
        """Give somebody another time, or none."""
        if self._due_ms.get(name) == due_ms:
            return
        if due_ms is None:
            del self._due_ms[name]
            return
        self._due_ms[name] = due_ms
        heapq.heappush(self._heap, (due_ms, name))
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._due_ms):
            self._heap = [(at_ms, one) for one, at_ms in self._due_ms.items()]
            heapq.heapify(self._heap)

    def next_ms(self) -> int | None:
        """The earliest time; None if nobody has one."""
        while self._heap and self._due_ms.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def until(self, until_ms: int) -> list[str]:
        """Everybody whose time is not after ``until_ms``, earliest first, then by name; they keep it."""
        taken: list[tuple[int, str]] = []
        while (due_ms := self.next_ms()) is not None and due_ms <= until_ms:
            one = heapq.heappop(self._heap)
            if not taken or taken[-1] != one:
                taken.append(one)
        for one in taken:
            heapq.heappush(self._heap, one)
        return [name for _, name in taken]
