from __future__ import annotations

from typing import Any

import orjson

from tests.integration.jobs import ROOT
from transforms.domain.rules.model import Rule
from transforms.domain.rules.schema import rule_schema, rule_schema_json


def test_the_published_schema_is_the_one_of_the_models() -> None:
    published = ROOT / "docs/rule.schema.json"
    assert published.read_text("utf-8") == rule_schema_json(), "run: event-trigger rules schema > docs/rule.schema.json"


def test_the_schema_has_every_field_of_a_document() -> None:
    schema = orjson.loads(rule_schema_json())
    assert set(schema["properties"]) == {*Rule.model_fields, "filter_file", "tests"}
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["name", "version", "actions"]
    assert schema["oneOf"] == [{"required": ["filter"]}, {"required": ["filter_file"]}]


def test_every_field_of_a_rule_is_described() -> None:
    rule = rule_schema()
    definitions: dict[str, Any] = rule["$defs"]
    for name, field in rule["properties"].items():
        references = [schema for schema in [field, *field.get("anyOf", [])] if "$ref" in schema]
        described = [definitions[reference["$ref"].rpartition("/")[2]].get("description") for reference in references]
        assert field.get("description") or any(described) or name == "actions", name


def test_every_reference_leads_somewhere() -> None:
    text = rule_schema_json()
    definitions = orjson.loads(text)["$defs"]
    references = [part.partition('"')[0] for part in text.split('"#/$defs/')[1:]]
    assert references
    assert set(references) <= set(definitions)
