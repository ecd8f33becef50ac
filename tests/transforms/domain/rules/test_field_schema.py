from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from transforms.domain.rules.field_schema import FieldSchema, Leaf, SchemaError, Unknown, read_schema

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "properties": {
        "event": {
            "properties": {
                "tier": {"enum": ["gold", "silver"]},
                "platform": {"type": "string", "enum": ["ios", "web"]},
                "parameters": {
                    "oneOf": [
                        {"properties": {"sku": {"type": "string"}}, "additionalProperties": False},
                        {"properties": {"price": {"type": ["number", "null"]}, "a.b": {"type": "boolean"}}},
                        {"$ref": "#/$defs/cart"},
                    ]
                },
            }
        },
        "user": {
            "type": "object",
            "properties": {"country": {"type": "string"}},
            "patternProperties": {"^x_": {"type": "number"}},
            "additionalProperties": False,
        },
    },
    "$defs": {
        "cart": {"properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/item"}}}},
        "item": {"properties": {"sku": {"type": "string"}, "bundle": {"$ref": "#/$defs/item"}}},
    },
}
TEXT = Leaf(frozenset(["string"]))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("event.event_name", TEXT),
        ("event.timestamp", Leaf(frozenset(["integer"]))),
        ("event.tier", Leaf(frozenset(["string"]), ("gold", "silver"))),
        ("event.platform", Leaf(frozenset(["string"]), ("ios", "web"))),
        ("event.parameters.sku", TEXT),
        ("event.parameters.price", Leaf(frozenset(["number", "null"]))),
        ("event.parameters.a.b", Leaf(frozenset(["boolean"]))),
        ("event.parameters.items.[].sku", TEXT),
        ("event.parameters.items.[].bundle.bundle.sku", TEXT),
        ("user.country", TEXT),
        ("user.x_score", Leaf(frozenset(["number"]))),
        ("user.enrichment", TEXT),
        ("history.[].event_name", TEXT),
        ("begun.tier", Leaf(frozenset(["string"]), ("gold", "silver"))),
        ("visit.page_count", Leaf(frozenset(["integer"]))),
        ("event.domain.x", Unknown(1, (), True)),
        ("event.parameters.colour", Unknown(1, ("sku", "price", "a.b", "items"), True)),
        ("event.parameters.items.[].size", Unknown(3, ("sku", "bundle"), False)),
        ("user.name", Unknown(0, ("country", "enrichment"), True)),
        ("visit.pages", Unknown(0, ("visit_id", "start_time", "page_count", "is_first_visit"), True)),
    ],
)
def test_a_field_is_found_in_the_schema(path: str, found: object) -> None:
    root, *names = path.replace("a.b", "a-b").split(".")
    assert FieldSchema(SCHEMA, "s.json").find(root, [name.replace("a-b", "a.b") for name in names]) == found


def test_a_path_of_names_finds_a_field_with_dots_in_its_name() -> None:
    assert FieldSchema(SCHEMA).find("event", ("parameters", "a", "b")) == Leaf(frozenset(["boolean"]))


def test_without_a_schema_only_the_specification_is_known() -> None:
    schema = FieldSchema()
    assert schema.find("event", ("is_https",)) == Leaf(frozenset(["boolean"]))
    assert isinstance(schema.find("event", ("is_http",)), Unknown)
    assert schema.find("event", ("parameters", "anything")) is None
    assert schema.find("user", ("anything",)) is None


def test_a_schema_that_refers_to_itself_ends() -> None:
    loop = {"properties": {"event": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}
    assert FieldSchema(loop).find("event", ("event_name",)) == TEXT


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "a list, allowed is a JSON Schema"),
        ({}, "properties is None, allowed is"),
        ({"properties": {"evnt": {}}}, "properties.evnt: no such part; did you mean 'event'?"),
        ({"properties": {"event": []}}, r"properties.event is \[\], allowed is a schema"),
        ({"properties": {"event": {"type": "text"}}}, "properties.event.type is 'text', allowed: string, integer"),
        (
            {"properties": {"event": {"properties": {"a": 5}}}},
            "properties.event.properties.a is 5, allowed is a schema",
        ),
        ({"properties": {"user": {"enum": "a"}}}, "properties.user.enum is 'a', allowed is a list"),
        ({"properties": {"user": {"$ref": "#/$defs/x"}}}, r"properties.user.\$ref is '#/\$defs/x', allowed is a place"),
        ({"properties": {"user": {"$ref": "http://x"}}}, r"properties.user.\$ref is 'http://x', allowed is a place"),
        (
            {"properties": {"user": {"patternProperties": {"(": {}}}}},
            r"properties.user.patternProperties '\(' is no regular expression",
        ),
        ({"properties": {"user": {"allOf": {}}}}, "properties.user.allOf is {}, allowed is a list of schemas"),
        ({"properties": {"user": {}}, "$defs": 1}, r"\$defs is 1, allowed is an object of schemas"),
    ],
)
def test_a_document_that_is_no_such_schema_is_refused(document: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=f"^s.json: {message}"):
        FieldSchema(document, "s.json")


def test_a_schema_file_is_json_or_yaml(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA, indent="\t"))
    assert read_schema(file).find("user", ("country",)) == TEXT
    file.write_text("properties:\n  user:\n    properties: {country: {type: string}}\n")
    assert read_schema(file).find("user", ("country",)) == TEXT
    for text, message in (("[", "schema.json:1: neither JSON nor YAML"), ("", "0 documents, allowed is one")):
        file.write_text(text)
        with pytest.raises(SchemaError, match=message):
            read_schema(file)
    with pytest.raises(SchemaError, match=r"missing\.json: cannot be read"):
        read_schema(tmp_path / "missing.json")
