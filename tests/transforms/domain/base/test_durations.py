from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.base.durations import Duration

SECOND = 1000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1s", SECOND), ("90s", 90 * SECOND), ("10m", 10 * MINUTE), ("2h", 120 * MINUTE), ("1d", DAY), ("52w", 364 * DAY)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, ms: int) -> None:
    assert Duration.parse(text) == Duration(ms)


@pytest.mark.parametrize("text", ["", "1", "s", "0s", "-1s", "1.5h", "1 s", "1S", "1s\n", "1m30s", 5, None, True])
def test_an_invalid_duration_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="a whole number and a unit"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["367d", "53w", "99999999w"])
def test_a_duration_is_at_most_a_year(text: str) -> None:
    with pytest.raises(ValueError, match="at most 366d"):
        Duration.parse(text)


@given(st.integers(1, 366 * 24 * 3600))
def test_the_text_of_a_duration_is_parsed_to_the_same_duration(seconds: int) -> None:
    assert Duration.parse(str(Duration(seconds * SECOND))) == Duration(seconds * SECOND)
