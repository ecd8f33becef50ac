from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.history import _SLACK, History, Row, public_rows

ROWS = st.builds(
    lambda timestamp, number, name, extra: (timestamp, f"e{number}", name, extra),
    st.integers(1, 30),
    st.integers(0, 40),
    st.sampled_from(["page_view", "click", "e1"]),
    st.none() | st.dictionaries(st.sampled_from(["platform", "duration"]), st.text(max_size=3), min_size=1),
)


class NaiveHistory:
    """The same in a list that is sorted after every change."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows = sorted([*self.rows, row], key=lambda one: one[0])[-self.limit :]

    def merge(self, rows: list[Row]) -> None:
        known = {row[1] for row in self.rows}
        fresh = {row[1]: row for row in rows if row[1] not in known}
        self.rows = sorted([*fresh.values(), *self.rows], key=lambda one: one[0])[-self.limit :]


@given(
    st.integers(1, 8),
    st.lists(
        st.tuples(st.just("add"), ROWS)
        | st.tuples(st.just("merge"), st.lists(ROWS, max_size=10))
        | st.tuples(st.just("pack"), st.none()),
        max_size=120,
    ),
)
def test_history_is_a_sorted_list_of_the_last_rows(limit: int, steps: list[tuple[str, object]]) -> None:
    history, naive = History(limit), NaiveHistory(limit)
    for what, argument in steps:
        if what == "add":
            history.add(argument)  # type: ignore[arg-type]
            naive.add(argument)  # type: ignore[arg-type]
        elif what == "merge":
            history.merge(argument)  # type: ignore[arg-type]
            naive.merge(argument)  # type: ignore[arg-type]
        else:
            history = History.unpack(limit, history.pack())
        assert history.rows() == naive.rows
        assert len(history) == len(naive.rows)
        assert all(history.contains(f"e{n}") == any(row[1] == f"e{n}" for row in naive.rows) for n in range(41))


def test_late_events_are_sorted_in_and_ties_keep_their_arrival() -> None:
    history = History(10)
    for row in ((5, "a", "n", None), (3, "late", "n", None), (5, "b", "n", None), (3, "later", "n", None)):
        history.add(row)
    assert [row[1] for row in history.rows()] == ["late", "later", "a", "b"]


def test_the_oldest_timestamp_goes_and_not_the_oldest_arrival() -> None:
    history = History(2)
    for row in ((5, "a", "n", None), (3, "late", "n", None), (9, "new", "n", None), (1, "too old", "n", None)):
        history.add(row)
    assert [row[1] for row in history.rows()] == ["a", "new"]
    assert not history.contains("too old")


def test_rows_that_wait_to_be_dropped_in_lots_are_never_seen() -> None:
    history = History(5)
    for number in range(5 + _SLACK + 3):
        history.add((number + 1, f"e{number}", "n", None))
        assert len(history) == min(number + 1, 5)
        assert not history.contains(f"e{number - 5}")
    assert [row[1] for row in history.rows()] == [f"e{number}" for number in range(_SLACK + 3, _SLACK + 8)]


def test_an_id_that_only_occurs_inside_other_text_is_not_contained() -> None:
    history = History(5)
    history.add((1, "abc", "e1", {"note": "e1"}))
    assert not history.contains("e1")
    assert not history.contains("b")


def test_merged_rows_come_before_live_rows_of_the_same_time() -> None:
    history = History(5)
    history.add((5, "live", "n", None))
    history.merge([(5, "api", "n", None), (4, "older", "n", None), (5, "live", "other", None)])
    assert history.rows() == [(4, "older", "n", None), (5, "api", "n", None), (5, "live", "n", None)]


def test_a_history_packed_under_a_larger_limit_is_cut_by_the_smaller() -> None:
    large = History(10)
    for number in range(10):
        large.add((number + 1, f"e{number}", "n", None))
    small = History.unpack(3, large.pack())
    assert [row[1] for row in small.rows()] == ["e7", "e8", "e9"]
    assert not small.contains("e6")
    small.add((99, "new", "n", None))
    assert [row[1] for row in small.rows()] == ["e8", "e9", "new"]


def test_bytes_held_stay_bounded() -> None:
    history = History(100)
    for number in range(5000):
        history.add((number + 1, f"event-{number:06d}", "page_view", None))
    assert history.nbytes < 200 * 40


@pytest.mark.parametrize("extra", [None, {"platform": "web"}])
def test_public_rows_show_the_kept_fields(extra: dict[str, str] | None) -> None:
    shown = public_rows([(7, "e", "n", extra)])
    assert shown == [{"event_id": "e", "event_name": "n", "timestamp": 7} | (extra or {})]
