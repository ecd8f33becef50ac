"""The JSON Schema of rule files, for editors and other tools; published as ``docs/rule.schema.json``."""

from __future__ import annotations

from typing import Any, Final

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from transforms.domain.base.durations import Duration
from transforms.domain.rules.cases import Case
from transforms.domain.rules.group_files import GroupsDocument
from transforms.domain.rules.model import Rule

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def rule_schema() -> dict[str, Any]:
    """Return the JSON Schema of one document of a rule file: a rule with its filter or filter file, and its cases."""
    references, definitions = models_json_schema(
        [(Rule, "validation"), (Case, "validation")], ref_template="#/$defs/{model}"
    )
    schemas = definitions["$defs"]
    rule = schemas.pop(references[(Rule, "validation")]["$ref"].rpartition("/")[2])
    # Short forms, which validators convert before pydantic checks types, so that its schema lacks them.
    rule["properties"]["cooldown"]["anyOf"].insert(0, TypeAdapter(Duration).json_schema())
    rule["properties"]["filter_file"] = {
        "type": "string",
        "pattern": r"^[A-Za-z0-9_-][A-Za-z0-9._-]*\.lua$",
        "description": "a Lua file beside this one, in place of filter",
    }
    rule["properties"]["tests"] = {
        "type": "array",
        "items": {"$ref": references[(Case, "validation")]["$ref"]},
        "description": "cases that `event-trigger rules test` runs",
    }
    rule["required"] = [name for name in rule["required"] if name != "filter"]
    rule["oneOf"] = [{"required": ["filter"]}, {"required": ["filter_file"]}]
    return {"$schema": _DIALECT, "$id": "urn:event-trigger:schema:rule", **rule, "title": "Rule", "$defs": schemas}


def groups_schema() -> dict[str, Any]:
    """Return the JSON Schema of a document of a rule file that declares groups."""
    schema = TypeAdapter(GroupsDocument).json_schema()
    return {**schema, "title": "Groups"}


def rule_schema_json() -> str:
    """Return ``rule_schema`` as the text of docs/rule.schema.json."""
    return orjson.dumps(rule_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"
