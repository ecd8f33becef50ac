from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.base.due_index import DueIndex

NAMES = st.sampled_from("abcdefgh")
TIMES_MS = st.none() | st.integers(0, 20)


@given(st.lists(st.tuples(NAMES, TIMES_MS), max_size=300), st.integers(0, 20))
def test_the_index_agrees_with_a_dictionary(changes: list[tuple[str, int | None]], until_ms: int) -> None:
    index, due_ms = DueIndex(), dict[str, int]()
    for name, time_ms in changes:
        index.set(name, time_ms)
        due_ms.pop(name, None)
        if time_ms is not None:
            due_ms[name] = time_ms
        assert index.next_ms() == min(due_ms.values(), default=None)
    expected = sorted((time_ms, name) for name, time_ms in due_ms.items() if time_ms <= until_ms)
    for _ in range(2):  # the names stay in the index
        assert index.until(until_ms) == [name for _, name in expected]
