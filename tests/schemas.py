"""Builds the JSON Schemas from the models, structs and constants that the code reads and writes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import orjson

from pipeline.launch.options.config_file import EXTENDS, OF_ONE_LAUNCH, PROFILE, PROFILES
from pipeline.launch.options.fields import Option
from pipeline.launch.options.settings import OPTIONS
from pipeline.launch.options.values import PROPERTIES
from transforms.adapters.kafka.clients import CONFIDENTIAL
from transforms.domain.base.secret_references import REFERENCE
from transforms.domain.events import event
from transforms.domain.events.dead_letter import STAGES, UNKNOWN
from transforms.domain.rules.schema import groups_schema, rule_schema
from transforms.domain.shard import decisions
from transforms.domain.webhooks.destinations import Destination

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_JSON_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object"}
_TEXT: Final = {"type": "string", "minLength": 1}
_REFERENCE: Final = {"type": "string", "pattern": f"^({REFERENCE})$"}


def build(name: str) -> str:
    """The text of a schema."""
    title, description, make = _SCHEMAS[name]
    schema = {**make(), "$schema": _DIALECT, "$id": f"urn:event-trigger:schema:{name}", "title": title}
    if description:
        schema["description"] = description
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"


# Files


def _config() -> dict[str, Any]:
    options = {name: _option(option) for name, option in OPTIONS.items() if name not in OF_ONE_LAUNCH}
    extends = {**_TEXT, "description": "another file, whose values this one adds to and replaces"}
    profile = _object(
        options | {EXTENDS: {**_TEXT, "description": "another profile, which this one adds to"}}, closed=True
    )
    profiles = {
        "type": ["object", "null"],
        "description": "options by the name of a profile",
        "additionalProperties": {"anyOf": [profile, {"type": "null"}]},
    }
    chosen = {**_TEXT, "description": "the profile without --profile and EVENT_TRIGGER_PROFILE"}
    return _object(options | {EXTENDS: extends, PROFILE: chosen, PROFILES: profiles}, closed=True)


def _option(option: Option) -> dict[str, Any]:
    """An option, or null, which takes back what a layer below gives."""
    if option.name in PROPERTIES:
        scalar = {"type": ["string", "number", "boolean", "null"]}
        secret = {"anyOf": [_REFERENCE, {"type": "null"}]}
        of_type: dict[str, Any] = {
            "type": "object",
            "patternProperties": {f"^({CONFIDENTIAL})$": secret},
            "additionalProperties": scalar,
        }
        of_type["propertyNames"] = {"pattern": r"^[A-Za-z0-9._-]+$"}
    elif option.is_reference:
        of_type = dict(_REFERENCE)
    elif option.kind == tuple[str, ...]:
        of_type = {"type": "array", "items": {"anyOf": [_TEXT, {"type": "integer"}]}}
    elif option.name == "bootstrap_servers":
        of_type = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
    elif option.choices:
        of_type = {"enum": list(option.choices)}
    else:
        of_type = {"type": _JSON_TYPES.get(option.kind, "string")}
        if of_type["type"] == "string":
            of_type["minLength"] = 1
        bounds = {"minimum": option.least, "maximum": option.most}
        of_type |= {name: bound for name, bound in bounds.items() if bound is not None}
    unit = f" [{option.unit}]" if option.unit and option.is_number else ""
    return {"anyOf": [of_type, {"type": "null"}], "description": option.text + unit, "default": option.default}


def _destination() -> dict[str, Any]:
    schema = Destination.model_json_schema(ref_template="#/$defs/{model}")
    definitions = schema.pop("$defs", {}) | {"Destination": schema}
    listed = {"type": "array", "items": {"$ref": "#/$defs/Destination"}}
    return {**_object({"destinations": listed}, ["destinations"], closed=True), "$defs": definitions}


# Records


def _action() -> dict[str, Any]:
    required = {name: {"type": "integer"} if name == "timestamp" else _TEXT for name in event.REQUIRED}
    optional = {
        name: {"type": "number" if name == "duration" else _JSON_TYPES[type(default)]}
        for name, default in event.DEFAULTS.items()
    }
    visit = {
        "visit_id": {"type": "string"},
        "start_time": {"type": "integer"},
        "page_count": {"type": "integer"},
        "is_first_visit": {"type": "boolean"},
    }
    row = {name: required[name] for name in ("event_id", "event_name", "timestamp")}
    parts = {
        "event": _object(required | optional, [*required, *optional]),
        "userProfile": {"type": "object"},
        "currentVisit": {"anyOf": [_object(visit, list(visit)), {"type": "null"}]},
        "eventHistory": {"type": "array", "items": _object(row, list(row))},
        "enrichment": {"type": "string"},
    }
    return _object(parts, ["event", "userProfile", "currentVisit"], closed=True)


def _dead_letter() -> dict[str, Any]:
    text, number, coded = {"type": "string"}, {"type": "integer"}, {"type": "string", "contentEncoding": "base64"}
    action = {
        **dict.fromkeys(("action_id", "action", "destination", "user_id", "event_id"), text),
        **dict.fromkeys(("rule_version", "decided_ms", "attempts"), number),
        "body": coded,
        "status": {"type": ["integer", "null"]},
    }
    letter = {
        "reason": {"enum": list(STAGES)},
        "stage": {"enum": [*sorted(set(STAGES.values())), UNKNOWN]},
        "detail": text,
        "rule": {"type": ["string", "null"]},
        "topic": text,
        **{name: {"type": "integer", "minimum": -1} for name in ("partition", "offset")},
        "timestamp": number,
        "key": {"type": ["string", "null"], "contentEncoding": "base64"},
        "value": coded,
        "cut": {"type": "boolean"},
    }
    return _object(letter | {"action": _object(action, list(action))}, list(letter))


def _decision() -> dict[str, Any]:
    schema = msgspec.json.schema(decisions.Decision)["$defs"]["Decision"]
    # Fields that do not apply are left out, so that none is null.
    properties = {name: _without_null(field) for name, field in schema["properties"].items()}
    properties["decision"] = {"enum": list(decisions.KINDS)}
    return _object(properties, schema["required"])


def _without_null(field: Mapping[str, Any]) -> dict[str, Any]:
    return next((kind for kind in field.get("anyOf", ()) if kind["type"] != "null"), dict(field))


def _audit() -> dict[str, Any]:
    number = {"type": "integer"}
    forget = {
        "audit": {"const": "forget"},
        "found": {"type": "boolean"},
        "topic": {"type": "string"},
        **dict.fromkeys(("time", "partition", "offset"), number),
    }
    rules = {"audit": {"const": "rules"}, **dict.fromkeys(("number", "shard", "shards", "time"), number)}
    job = {
        "audit": {"const": "job"},
        "job": {"type": "string"},
        "rules_topic": {"type": "string"},
        "destinations": {"type": "array", "items": {"type": "string"}},
        "options": {"type": "object", "description": "options that change what rules do"},
        "time": number,
    }
    unkeyed = forget | {"user_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}
    keyed = forget | {"user_hash": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}
    return {"oneOf": [_object(fields, list(fields)) for fields in (unkeyed, keyed, rules, job)]}


def _object(properties: Mapping[str, Any], required: list[str] | None = None, closed: bool = False) -> dict[str, Any]:
    """An object; later releases may add fields to those that are not ``closed``."""
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = required
    return schema | ({"additionalProperties": False} if closed else {})


_SCHEMAS: Final[Mapping[str, tuple[str, str, Callable[[], dict[str, Any]]]]] = {
    "config": ("Configuration", "event-trigger.yaml: options for the launch and for commands.", _config),
    "rule": ("Rule", "", rule_schema),
    "groups": ("Groups", "A document of a rule file that declares groups of rules.", groups_schema),
    "destination": ("Destinations", "The file of --destinations.", _destination),
    "action": ("Action", "Body of an action of a rule that has no body of its own: the enriched event.", _action),
    "dead-letter": ("Dead letter", "A record of --dead_letters_topic.", _dead_letter),
    "decision": ("Decision", "A record of --decisions_topic.", _decision),
    "audit": ("Audit record", "A record of --audit_topic.", _audit),
}
