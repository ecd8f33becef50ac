from __future__ import annotations

import tracemalloc
from typing import Any

import orjson
import pytest

from transforms.domain.rules.placeholders import Placeholder
from transforms.domain.rules.templates import BodyTooLargeError, Values, check, render

VALUES = {
    "event": {
        "event_name": "buy",
        "a.b": 5,
        "a": {"b": 6, "c": 7},
        "parameters": {
            "sku": "a-1",
            "price": 9.5,
            "tags": ["x"],
            "none": None,
            "x-y": {"é }.": 1},
            "blank": "",
            "items": [{"sku": "s1"}, {"sku": "s2", "a": {"b": 6}, "a.b": 5}],
        },
    },
    "user": {"name": "Ünal"},
    "visit": {"page_count": 3},
    "history": [],
    "enrichment": "fetched",
    "action": {"id": "abc"},
}


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("${event.event_name}", "buy"),
        ("${event.parameters.price}", 9.5),
        ("${event.parameters.tags}", ["x"]),
        ("${event.parameters}", VALUES["event"]["parameters"]),
        ("${event.parameters.none}", None),
        ("${event.parameters.missing.deeper}", None),
        ("${event.event_name.deeper}", None),
        ("${event.a.b} ${event.a.c}", "5 7"),
        ("${history.a}", None),
        ("${enrichment}", "fetched"),
        ("${enrichment.a}", None),
        ("Hello ${user.name}, ${visit.page_count} pages", "Hello Ünal, 3 pages"),
        ("${user.name}${user.name}", "ÜnalÜnal"),
        ("[${user.missing}]", "[]"),
        ("tags ${event.parameters.tags}", 'tags ["x"]'),
        ("costs 5 $ {not one}", "costs 5 $ {not one}"),
        (
            {"to": "${user.name}", "list": ["${visit.page_count}", 1, True, None]},
            {"to": "Ünal", "list": [3, 1, True, None]},
        ),
        (7, 7),
        ("${user.nick|there}", "there"),
        ("Hello ${user.nick|}${user.name|there}!", "Hello Ünal!"),
        ("Hello ${event.parameters.none|a | b: [1].}", "Hello a | b: [1]."),
        ("${event.parameters.blank|empty}", "empty"),
        ("${event.parameters.price|1}", 9.5),
        ("${event.parameters.missing.deeper|7}", "7"),
        ("${event.parameters.items[-1].sku}", "s2"),
        ("${event.parameters.items[1].sku}, ${event.parameters.items[2].sku}", "s1, s2"),
        ("${event.parameters.items[3].sku|none}", "none"),
        ("${event.parameters.items[-3]}", None),
        ("${event.parameters.items[2].a.b}", 6),
        ('${event.parameters.items[2]["a.b"]}', 5),
        ('${event.parameters["x-y"]["é }."]}', 1),
        ('"${event.parameters["x-y"]}"', '"{"é }.":1}"'),
        ("${event.parameters.sku[1]}", None),
        ("${history[-1].event_name|nothing yet}", "nothing yet"),
        ("$${event.parameters.price}", "$9.5"),
        ('${"${"}', "${"),
        ('${"${"}event.event_name} is ${event.event_name}', "${event.event_name} is buy"),
    ],
)
def test_placeholders_become_values(template: Any, rendered: Any) -> None:
    check(template)
    assert orjson.loads(render(template, Values(VALUES), 10_000)) == rendered


@pytest.mark.parametrize(
    "template",
    [
        "${}",
        "${profile.name}",
        "${event..x}",
        "${event[0]}",
        {"a": ["${x}"]},
        "${ event}",
        "${|x}",
        "${event[x]}",
        "${event['x']}",
        '${event.x"}',
        '${"x"}',
        "${event.a |b}",
    ],
)
def test_a_placeholder_without_a_possible_value_is_refused(template: Any) -> None:
    with pytest.raises(
        ValueError,
        match=r"is no path of names that begins with one of event, user, visit, history, enrichment, action, begun",
    ):
        check(template)


def test_too_many_levels_are_refused() -> None:
    template: Any = "x"
    for _ in range(25):
        template = [template]
    with pytest.raises(ValueError, match="nested deeper than 20 levels"):
        check(template)


HISTORY = [{"event_id": f"e{number}", "note": "x" * 100} for number in range(100)]


@pytest.mark.parametrize(
    "template",
    [
        {"a": "${history}" * 10_000},
        {"a": ["${history}"] * 10_000},
        {f"k{number}": "${history}" for number in range(10_000)},
        {"a": "${user.name}" * 60_000},
        {"a": [["${user}"] * 1000] * 1000},
        {"x" * 20_000: 1},
        {"a": [1] * 30_000},
        {"a": [12345678] * 3000},
        {"a": "\x01" * 3000},
    ],
    ids=lambda template: str(template)[:30],
)
def test_a_body_that_grows_over_its_limit_is_given_up_while_it_is_built(template: Any) -> None:
    values = Values({**VALUES, "history": HISTORY})
    values.of(Placeholder("history"))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError, match="bytes"):
            render(template, values, 16_000)
        assert tracemalloc.get_traced_memory()[1] < 60 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_body_of_just_its_limit_is_built() -> None:
    size = len(render({"a": "${history}"}, Values({"history": HISTORY}), 1_000_000))
    assert len(render({"a": "${history}"}, Values({"history": HISTORY}), size)) == size
    with pytest.raises(BodyTooLargeError, match=f"^{size} bytes$"):
        render({"a": "${history}"}, Values({"history": HISTORY}), size - 1)
