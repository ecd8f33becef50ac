"""A value of an option, from text (flags, environment) or YAML to its type, or an error that says what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from pipeline.errors import OptionError
from pipeline.kafka.client_properties import is_secret_property
from pipeline.launch.options.fields import Option
from pipeline.launch.options.kafka_properties import kafka_properties
from transforms.domain.base.secret_references import ALLOWED, is_reference

# Options that are mappings in a file, and merged by key: NAME=VALUE pairs as flags.
PROPERTIES: Final = ("kafka_property", "consumer_property", "producer_property")
_NO_SECRETS: Final = "the file never holds the secret itself"
_LISTS: Final = tuple[str, ...]


def from_text(option: Option, given: Any, label: str) -> Any:
    """The value of a flag or variable called ``label``: a text, or the texts of a repeatable flag.

    Raises:
        OptionError: it is not allowed.
    """
    if option.name in PROPERTIES:
        return kafka_properties(option.name, _texts(given, label, is_pairs=True), label)
    if option.kind == _LISTS:
        texts = _texts(given, label, is_pairs=False)
        if "" in texts:
            raise OptionError(f"{label} is empty")
        return tuple(texts)
    if given == "" and option.kind in (str, Path):
        raise OptionError(f"{label} is empty")
    try:
        return option.adapter.validate_strings(given)
    except ValidationError as error:
        raise OptionError(f"{label} is {_problem(option, given, error)}") from None


def _texts(given: Any, label: str, is_pairs: bool) -> list[str]:
    """The texts of a list: as it is, as a JSON array, or separated by commas, which properties may contain."""
    if not isinstance(given, str):
        return list(given)
    if not given:
        raise OptionError(f"{label} is empty")
    if not given.startswith("["):
        return [given] if is_pairs else [text.strip() for text in given.split(",")]
    try:
        texts = orjson.loads(given)
    except orjson.JSONDecodeError:
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise OptionError(f"{label} is no JSON array of texts")
    return texts


def from_yaml(option: Option, given: Any) -> Any:
    """The value that a file gives; properties as a mapping, in which None takes one back.

    Raises:
        OptionError: it is not allowed; the message begins with the option's name and shows no secret.
    """
    if option.name in PROPERTIES:
        return _properties(option.name, given)
    if option.is_reference and not (isinstance(given, str) and is_reference(given)):
        raise OptionError(f"{option.name} is no reference, allowed: {ALLOWED}; {_NO_SECRETS}")
    if option.name == "bootstrap_servers" and isinstance(given, list) and all(isinstance(item, str) for item in given):
        given = ",".join(given)
    if option.kind == _LISTS and isinstance(given, list):
        given = [str(item) if type(item) is int else item for item in given]
    if given == "" or (isinstance(given, list) and "" in given):
        raise OptionError(f"{option.name} is empty")
    try:
        return option.adapter.validate_json(orjson.dumps(given), strict=True)
    except (ValidationError, orjson.JSONEncodeError) as error:
        # A URL may hold a password.
        shown = "no text" if option.name.endswith("_url") else _problem(option, given, error)
        raise OptionError(f"{option.name} is {shown}") from None


def _properties(name: str, given: Any) -> dict[str, str | None]:
    if not isinstance(given, Mapping):
        raise OptionError(f"{name} is no mapping, allowed: a property of Kafka's clients a line, as linger.ms: 5")
    properties: dict[str, str | None] = {}
    for key, value in given.items():
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, int | float):
            value = str(value)
        if value is not None and not isinstance(value, str):
            raise OptionError(f"{name}.{key} is neither text, number, true nor false")
        if value is not None and is_secret_property(key) and not is_reference(value):
            raise OptionError(
                f"{name}.{key} is no reference, allowed: {ALLOWED}; the file never holds the secret itself"
            )
        properties[key] = value
    kafka_properties(name, [f"{key}=" for key in properties], name)
    return properties


def _problem(option: Option, given: Any, error: Exception) -> str:
    kinds = {details["type"] for details in error.errors()} if isinstance(error, ValidationError) else set()
    in_range = kinds & {"greater_than_equal", "less_than_equal", "finite_number"}
    shown = str(given) if in_range else repr(given)
    if option.is_number and not in_range:
        kind = "whole " if option.kind is int else ""
        return f"{shown}, allowed: a {kind}number, {option.allowed}"
    hint = "; quote it" if option.kind is str and isinstance(given, int | float) else ""
    return f"{shown if len(shown) < 100 else shown[:100] + '…'}, allowed: {option.allowed}{hint}"
