"""An index of due times: which name is due at which time."""

from __future__ import annotations

import heapq


class DueIndex:
    """Maps names to due times (ms) and finds the earliest in logarithmic time.

    When a name's time changes, its old heap entry stays; ``next_ms`` skips it.
    """

    __slots__ = ("_due_ms", "_heap")

    def __init__(self) -> None:
        self._due_ms: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def set(self, name: str, due_ms: int | None) -> None:
        """Set the due time of a name; None removes the name."""
        if self._due_ms.get(name) == due_ms:
            return
        if due_ms is None:
            del self._due_ms[name]
            return
        self._due_ms[name] = due_ms
        heapq.heappush(self._heap, (due_ms, name))
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._due_ms):
            self._heap = [(at_ms, name) for name, at_ms in self._due_ms.items()]
            heapq.heapify(self._heap)

    def next_ms(self) -> int | None:
        """Return the earliest due time (ms), None if the index is empty."""
        while self._heap and self._due_ms.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def until(self, until_ms: int) -> list[str]:
        """Return the names due at ``until_ms`` or earlier, by time and name; they stay in the index."""
        due: list[tuple[int, str]] = []
        while (due_ms := self.next_ms()) is not None and due_ms <= until_ms:
            entry = heapq.heappop(self._heap)
            if not due or due[-1] != entry:
                due.append(entry)
        for entry in due:
            heapq.heappush(self._heap, entry)
        return [name for _, name in due]
