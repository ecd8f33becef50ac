from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.base import exact_json
from transforms.domain.users.history import _SLACK, History, Row, sort_api_rows, sort_rows

ROWS = st.builds(
    lambda timestamp, number, name, extra, from_api: Row(timestamp, f"e{number}", name, extra, from_api),
    st.integers(1, 30),
    st.integers(0, 40),
    st.sampled_from(["page_view", "click", "e1"]),
    st.none() | st.dictionaries(st.sampled_from(["platform", "duration"]), st.text(max_size=3), min_size=1),
    st.booleans(),
)


class NaiveHistory:
    """A history as a list that is sorted after every change."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows = sorted([*self.rows, row], key=lambda row: row.timestamp_ms)[-self.limit :]

    def find(self, event_id: str) -> Row | None:
        return next((row for row in self.rows if row.event_id == event_id), None)

    def merge(self, rows: list[Row]) -> None:
        known = {row.event_id for row in self.rows}
        fresh = {row.event_id: row for row in rows if row.event_id not in known}
        self.rows = sorted([*fresh.values(), *self.rows], key=lambda row: row.timestamp_ms)[-self.limit :]


@given(
    st.integers(1, 8),
    st.lists(
        st.tuples(st.just("add"), ROWS)
        | st.tuples(st.just("merge"), st.lists(ROWS, max_size=10))
        | st.tuples(st.just("drop"), st.integers(0, 40))
        | st.tuples(st.just("pack"), st.none()),
        max_size=120,
    ),
)
def test_history_is_a_sorted_list_of_the_last_rows(limit: int, steps: list[tuple[str, object]]) -> None:
    history, naive = History(limit), NaiveHistory(limit)
    for operation, argument in steps:
        if operation == "add":
            history.add(argument)  # type: ignore[arg-type]
            naive.add(argument)  # type: ignore[arg-type]
        elif operation == "merge":
            history.merge(argument)  # type: ignore[arg-type]
            naive.merge(argument)  # type: ignore[arg-type]
        elif operation == "drop":
            history.drop(f"e{argument}")
            naive.rows = [row for row in naive.rows if row.event_id != f"e{argument}"]
        else:
            history = History.unpack(limit, history.pack())
        assert history.rows() == naive.rows
        assert len(history) == len(naive.rows)
        for number in range(41):
            assert history.find(f"e{number}") == naive.find(f"e{number}")
        assert history.public_json() == exact_json.dumps([row.public() for row in naive.rows])
        assert history.oldest_ms() == min((row.timestamp_ms for row in naive.rows), default=None)


def test_late_events_are_sorted_in_and_ties_keep_their_arrival() -> None:
    history = History(10)
    for row in ((5, "a"), (3, "late"), (5, "b"), (3, "later")):
        history.add(Row(*row, "n"))
    assert [row.event_id for row in history.rows()] == ["late", "later", "a", "b"]


def test_the_oldest_timestamp_goes_and_not_the_oldest_arrival() -> None:
    history = History(2)
    for row in ((5, "a"), (3, "late"), (9, "new"), (1, "too old")):
        history.add(Row(*row, "n"))
    assert [row.event_id for row in history.rows()] == ["a", "new"]
    assert history.find("too old") is None


def test_rows_over_the_limit_are_never_seen() -> None:
    history = History(5)
    for number in range(5 + _SLACK + 3):
        history.add(Row(number + 1, f"e{number}", "n", None))
        assert len(history) == min(number + 1, 5)
        assert history.find(f"e{number - 5}") is None
        assert all(history.find(f"e{kept}") for kept in range(max(number - 4, 0), number + 1))
    assert [row.event_id for row in history.rows()] == [f"e{number}" for number in range(_SLACK + 3, _SLACK + 8)]


def test_an_id_that_only_occurs_within_other_text_is_not_found() -> None:
    history = History(5)
    history.add(Row(1, "abc", "e1", {"note": "e1"}))
    assert history.find("e1") is None
    assert history.find("b") is None


def test_merged_rows_come_before_live_rows_of_the_same_time() -> None:
    history = History(5)
    history.add(Row(5, "live", "n", None))
    history.merge([Row(5, "api", "n"), Row(4, "older", "n"), Row(5, "live", "other")])
    assert history.rows() == [Row(4, "older", "n"), Row(5, "api", "n"), Row(5, "live", "n")]


def test_a_history_packed_under_a_larger_limit_is_cut_by_the_smaller() -> None:
    large = History(10)
    for number in range(10):
        large.add(Row(number + 1, f"e{number}", "n", None))
    small = History.unpack(3, large.pack())
    assert [row.event_id for row in small.rows()] == ["e7", "e8", "e9"]
    assert small.find("e6") is None
    small.add(Row(99, "new", "n", None))
    assert [row.event_id for row in small.rows()] == ["e8", "e9", "new"]


def test_bytes_held_stay_bounded() -> None:
    history = History(100)
    for number in range(5000):
        history.add(Row(number + 1, f"event-{number:06d}", "page_view", None))
    assert history.nbytes < 200 * 40


@pytest.mark.parametrize("extra", [None, {"platform": "web"}])
def test_public_rows_show_the_kept_fields(extra: dict[str, str] | None) -> None:
    shown = [Row(7, "e", "n", extra).public()]
    assert shown == [{"event_id": "e", "event_name": "n", "timestamp": 7} | (extra or {})]


def test_a_history_is_cut_to_its_size_from_the_oldest_on() -> None:
    history = History(100)
    for number in range(20):
        history.add(Row(number + 1, f"e{number}", "n", {"note": "x" * 1000}))
    assert history.cut(30_000) == 0
    assert history.cut(10_000) == 12
    assert [row.event_id for row in history.rows()] == [f"e{number}" for number in range(12, 20)]
    assert history.nbytes <= 10_000
    assert history.cut(10) == 8
    assert history.rows() == []
    history.add(Row(1, "late", "n"))
    assert [row.event_id for row in history.rows()] == ["late"]


def test_rows_of_the_first_release_had_four_fields() -> None:
    packed = msgspec.msgpack.encode([5, "e", "n", {"x": 1}])
    assert History.unpack(10, (1, 5, packed)).rows() == [Row(5, "e", "n", {"x": 1}, from_api=False)]


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(2**64, 2**80).map(lambda number: exact_json.LongInteger(str(number)))
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
UNUSUAL_ROWS = st.builds(
    Row,
    st.integers(-(2**53), 2**53),
    st.text() | st.text('"\\x05\x06\x01\x7f{}[],:ab', max_size=4),
    st.text() | st.text('"\\x05\x06\x01\x7f{}[],:ab', max_size=4),
    st.none()
    | st.dictionaries(
        st.text(max_size=3) | st.sampled_from(["event_id", "event_name", "timestamp"]), JSON_VALUES, max_size=3
    ),
    st.booleans(),
    st.booleans(),
)


def exact(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Rows in a form in which long integers differ by their digits, and 1, 1.0 and True from each other."""
    return [(*msgspec.structs.astuple(row)[:3], exact_json.dumps(row.extra), row.from_api, row.is_page) for row in rows]


@given(st.lists(UNUSUAL_ROWS, max_size=6))
def test_whatever_a_row_has_is_read_and_shown_as_it_was(rows: list[Row]) -> None:
    history = History(100)
    for row in rows:
        history.add(row)
    kept = sorted(rows, key=lambda row: row.timestamp_ms)
    assert exact(history.rows()) == exact(kept)
    assert history.public_json() == exact_json.dumps([row.public() for row in kept])
    timestamps, event_ids, event_names, extras = history.columns()
    assert list(zip(timestamps, event_ids, event_names, strict=True)) == [
        (row.timestamp_ms, row.event_id, row.event_name) for row in kept
    ]
    wanted = [row.extra or {} for row in kept] if any(row.extra for row in kept) else None
    assert exact_json.dumps(extras) == exact_json.dumps(wanted)
    for row in kept:
        found = history.find(row.event_id)
        assert found is not None
        assert found.event_id == row.event_id
    restored = History.unpack(100, history.pack())
    assert exact(restored.rows()) == exact(kept)


@given(st.lists(UNUSUAL_ROWS, max_size=6, unique_by=lambda row: row.event_id))
def test_rows_of_an_earlier_release_are_read_as_they_were_written(rows: list[Row]) -> None:
    kept = sorted(rows, key=lambda row: row.timestamp_ms)
    packed = b"".join(msgspec.msgpack.encode(row, enc_hook=exact_json.to_msgpack) for row in kept)
    newest_ms = kept[-1].timestamp_ms if kept else 0
    history = History.unpack(100, (len(kept), newest_ms, packed))
    assert exact(history.rows()) == exact(kept)
    assert history.pack() == History.unpack(100, history.pack()).pack()


@given(st.lists(UNUSUAL_ROWS, max_size=6))
def test_rows_that_are_sorted_at_once_are_stored_like_rows_that_are_merged(rows: list[Row]) -> None:
    merged = History(100)
    merged.merge(rows)
    assert sort_rows(rows).packed[2] == merged.pack()[2]


# Some sorted, some not; ids that occur twice; texts with quotes and control characters.
COLUMNS = st.lists(
    st.tuples(st.integers(0, 9), st.text(alphabet='a"\\,\x03\x1f\u2028é', max_size=4), st.text(max_size=3))
)


@given(COLUMNS | COLUMNS.map(sorted))
def test_columns_of_the_user_api_are_stored_like_its_rows(columns: list[tuple[int, str, str]]) -> None:
    rows = [Row(at_ms, event_id, name, from_api=True) for at_ms, event_id, name in columns]
    stored = sort_api_rows(*([column[place] for column in columns] for place in (1, 2, 0)))
    assert stored == sort_rows(rows)
    assert stored.rows() == sorted({row.event_id: row for row in rows}.values(), key=lambda row: row.timestamp_ms)


def test_the_id_of_a_row_is_not_found_as_the_end_of_a_longer_one() -> None:
    history = History(5)
    history.add(Row(1, 'x"abc', "n"))
    history.add(Row(2, "later", "n"))
    history.keep_marks(sort_rows([Row(1, "abc", "n"), Row(2, "later", "n")]).marks)  # as if the hashes were the same
    assert history.find("abc") is None
    assert history.find("later") == Row(2, "later", "n")


def test_an_event_body_takes_a_history_as_orjson_would_write_it() -> None:
    history = History(3)
    for number in range(7):
        history.add(Row(number, f'é\u2028\x00"{number}', "n", {"a": 0.1, "b": [{"event_id": "}"}]}))
    assert history.public_json() == orjson.dumps([row.public() for row in history.rows()])
