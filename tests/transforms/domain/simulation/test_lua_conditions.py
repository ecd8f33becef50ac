from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.domain.rules.test_filters import EVENT, PROFILE, ROWS, allowed
from transforms.domain.simulation.lua_conditions import Condition, take_apart


def shape(condition: Condition) -> Any:
    """A condition as nested lists: the operator, then the parts; a leaf is its text."""
    return [condition.joined_by, *map(shape, condition.parts)] if condition.parts else condition.text


FUNCTION = "(function(x) if x and y then return x or y end end)(a)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.x", "event.x"),
        ("a and b and c", ["and", "a", "b", "c"]),
        ("a or b and c", ["or", "a", ["and", "b", "c"]]),
        ("(a or b) and c", ["and", ["or", "a", "b"], "c"]),
        ("((a))", "a"),
        ("(a) or (b)", ["or", "a", "b"]),
        ("not a and not (b or c)", ["and", ["not", "a"], ["not", ["or", "b", "c"]]]),
        ("not a == b", ["compared", "not a", "b"]),
        ("a.b == 'x and y'", ["compared", "a.b", "'x and y'"]),
        ('a ~= "\\" or b"', ["compared", "a", '"\\" or b"']),
        ("a == [[x or y]] or b", ["or", ["compared", "a", "[[x or y]]"], "b"]),
        ("a -- and b\n and c --[[ or d ]] or e", ["or", ["and", "a", "c"], "e"]),
        ("f(a and b) >= t[c or d]", ["compared", "f(a and b)", "t[c or d]"]),
        (f"{FUNCTION} and b", ["and", FUNCTION, "b"]),
        ("android and organic or notes", ["or", ["and", "android", "organic"], "notes"]),
        ("a < b == c", "a < b == c"),
    ],
)
def test_an_expression_is_split_into_conditions(text: str, expected: Any) -> None:
    assert shape(take_apart(text)) == expected


ATOMS = ["event.triggerable", 'user.country == "US"', "event.nothing", "#history >= 2", "visit.page_count < 1", "false"]


def joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("not ({})".format),
    )


def rebuilt(condition: Condition) -> str:
    """Lua of a condition with every bracket."""
    if condition.joined_by in ("and", "or"):
        return "(" + f" {condition.joined_by} ".join(map(rebuilt, condition.parts)) + ")"
    if condition.joined_by == "not":
        return f"(not {rebuilt(condition.parts[0])})"
    return f"({condition.text})"


@given(st.recursive(st.sampled_from(ATOMS), joined, max_leaves=6))
def test_conditions_joined_again_mean_the_same(text: str) -> None:
    first, second = allowed(text, rebuilt(take_apart(text)), fields=EVENT, profile=PROFILE, rows=ROWS)
    assert first is second
