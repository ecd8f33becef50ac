from __future__ import annotations

from typing import Any

import pytest

from transforms.domain.base import exact_json
from transforms.domain.rules.field_schema import FieldSchema, Leaf, Unknown
from transforms.domain.rules.schema_learning import LearnedSchema


def learned(*events: dict[str, Any], profiles: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    schema = LearnedSchema()
    for event in events:
        schema.add_event({"event_id": "e", "event_name": "a"} | event)
    for profile in profiles:
        schema.add_profile(profile)
    return schema.document()


def test_fields_and_types_are_learned() -> None:
    document = learned(
        {"tier": "gold", "parameters": {"price": 1, "items": [{"sku": "a"}], "note": None}},
        {"parameters": {"price": 1.5, "items": [{"size": 3}, {}], "note": "x", "a.b": True}},
        profiles=({"country": "US", "address": {"city": "Bonn"}}, {"country": None}),
    )
    assert document["properties"] == {
        "event": {
            "type": "object",
            "properties": {
                "parameters": {
                    "type": "object",
                    "properties": {
                        "a.b": {"type": "boolean"},
                        "items": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {"size": {"type": "integer"}, "sku": {"type": "string"}},
                            },
                        },
                        "note": {"type": ["null", "string"]},
                        "price": {"type": "number"},
                    },
                },
                "tier": {"type": "string"},
            },
        },
        "user": {
            "type": "object",
            "properties": {
                "address": {"type": "object", "properties": {"city": {"type": "string"}}},
                "country": {"type": ["null", "string"]},
            },
        },
    }


def test_what_is_learned_is_a_schema_that_check_reads() -> None:
    schema = FieldSchema(learned({"parameters": {"price": 1, "list": [], "big": exact_json.loads(b"1" * 30)}}))
    assert schema.find("event", ("parameters", "price")) == Leaf(frozenset(["integer"]))
    assert schema.find("event", ("parameters", "big")) == Leaf(frozenset(["number"]))
    assert schema.find("event", ("event_name",)) == Leaf(frozenset(["string"]))
    assert schema.find("event", ("parameters", "pric")) == Unknown(1, ("big", "list", "price"), False)
    assert schema.find("event", ("parameters", "list", "[]")) is None
    FieldSchema(learned())
    FieldSchema(learned({}))


@pytest.mark.parametrize("split", [1, 100, 500])
def test_names_that_are_data_are_no_fields(split: int) -> None:
    names = [f"id{number}" for number in range(500)]
    events = [
        {"parameters": {"by_id": {name: {"n": 1} for name in names[at : at + split]}}} for at in range(0, 500, split)
    ]
    by_id = learned(*events)["properties"]["event"]["properties"]["parameters"]["properties"]["by_id"]
    assert by_id == {
        "type": "object",
        "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer"}}},
    }


def test_depth_is_bounded() -> None:
    deep: Any = 1
    for _ in range(90):
        deep = {"a": [deep]}
    assert str(learned({"parameters": deep})).count("items") < 10
