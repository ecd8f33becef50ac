from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from transforms.domain.base.field_paths import MISSING, selection, value_at


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        ({"a": 1}, "a", 1),
        ({"a": None}, "a", None),
        ({}, "a", MISSING),
        ({"a": {"b": {"c": 0}}}, "a.b.c", 0),
        ({"a": {"b": None}}, "a.b", None),
        ({"a": {"b": None}}, "a.b.c", MISSING),
        ({"a": None}, "a.b", MISSING),
        ({"a": "b"}, "a.b", MISSING),
        ({"a": [{"b": 1}]}, "a.b", MISSING),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a.b": None, "a": {"b": 2}}, "a.b", None),
        ({"a": {"b.c": 1}}, "a.b.c", MISSING),
        ({"": {"": 1}}, ".", 1),
        ({"ä": {"😀": 1}}, "ä.😀", 1),
    ],
)
def test_a_path_names_a_field_and_a_name_with_dots_comes_first(document: Any, path: str, value: Any) -> None:
    assert value_at(document, path) is value or value_at(document, path) == value


EVENT = {"platform": "web", "parameters": {"category": "shoes", "price": 7, "cart": {"id": "c", "total": 3}}, "x.y": 1}


@pytest.mark.parametrize(
    ("names", "selected"),
    [
        ((), {}),
        (("platform", "missing"), {"platform": "web"}),
        (("parameters.category",), {"parameters": {"category": "shoes"}}),
        (
            ("parameters.cart.id", "parameters.price", "platform"),
            {"platform": "web", "parameters": {"price": 7, "cart": {"id": "c"}}},
        ),
        (("parameters.price", "parameters"), {"parameters": EVENT["parameters"]}),
        (("parameters.cart.id", "parameters.cart"), {"parameters": {"cart": {"id": "c", "total": 3}}}),
        (("x.y",), {"x.y": 1}),
        (("platform.name", "parameters.missing", "parameters.category.more"), {}),
    ],
)
def test_a_selection_has_each_field_where_the_document_has_it(names: tuple[str, ...], selected: Any) -> None:
    before = copy.deepcopy(EVENT)
    assert selection(names).of(EVENT) == selected
    assert before == EVENT


KEYS = st.sampled_from(["a", "b", "c", "a.b", "b.c", "a.b.c"])
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(st.none() | st.integers(0, 3), lambda inner: st.dictionaries(KEYS, inner, max_size=3)),
    max_size=4,
)


@examples(500)
@given(DOCUMENTS, st.lists(KEYS, max_size=5, unique=True).map(tuple))
def test_a_selection_says_of_each_of_its_fields_what_the_document_says(document: Any, names: tuple[str, ...]) -> None:
    before = copy.deepcopy(document)
    selected = selection(names).of(document)
    for name in names:
        assert value_at(selected, name) is value_at(document, name)
    assert document == before
