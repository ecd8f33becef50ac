from __future__ import annotations

from typing import Any

import orjson
import pytest

from transforms.domain.rules.templates import check, render

VALUES = {
    "event": {
        "event_name": "buy",
        "a.b": 5,
        "a": {"b": 6, "c": 7},
        "parameters": {"sku": "a-1", "price": 9.5, "tags": ["x"], "none": None},
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
    ],
)
def test_placeholders_become_values(template: Any, rendered: Any) -> None:
    check(template)
    assert orjson.loads(render(template, VALUES)) == rendered


@pytest.mark.parametrize(
    "template", ["${}", "${profile.name}", "${event..x}", "${event[0]}", {"a": ["${x}"]}, "${ event}"]
)
def test_a_placeholder_without_a_possible_value_is_refused(template: Any) -> None:
    with pytest.raises(ValueError, match=r"is no path of names that begins with one of event, user, visit, history"):
        check(template)


def test_too_many_levels_are_refused() -> None:
    template: Any = "x"
    for _ in range(25):
        template = [template]
    with pytest.raises(ValueError, match="nested deeper than 20 levels"):
        check(template)
