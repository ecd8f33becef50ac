"""Rule documents: YAML in, checked models out, one clear error for a bad one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class RuleError(ValueError):
    """A rule document that cannot be used: the message names the file, the field, the value and what is allowed."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DebugAction(_Model):
    """Prints ``DEBUG EVENT {json}``."""

    type: Literal["debug"]
    name: str = Field(default="debug", pattern=r"^[a-z0-9_-]{1,64}$", description="unique within the rule")


class KafkaAction(_Model):
    """Writes the enriched event to a Kafka topic, keyed by user."""

    type: Literal["kafka"]
    name: str = Field(default="kafka", pattern=r"^[a-z0-9_-]{1,64}$", description="unique within the rule")
    topic: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9._-]{1,249}$", description="default: the actions topic of the job"
    )


Action = Annotated[DebugAction | KafkaAction, Field(discriminator="type")]


class Rule(_Model):
    """One rule: a Lua filter over ``event``, ``user``, ``visit`` and ``history``, and what to do where it allows."""

    name: str = Field(pattern=r"^[a-z0-9_-]{1,64}$", description="unique among the rules")
    version: int = Field(ge=1, description="part of every action's id: raise it when the meaning changes")
    description: str = Field(default="", description="for people")
    filter: str = Field(min_length=1, max_length=64 * 1024, description="Lua: an expression, or a body with return")
    actions: tuple[Action, ...] = Field(min_length=1, strict=False)
    on_missing_profile: Literal["wait", "run", "skip"] = Field(
        default="wait",
        description="while the user is being loaded: wait for the profile, run with an empty one, or skip the event",
    )

    @model_validator(mode="after")
    def _action_names_are_unique(self) -> Rule:
        repeated = [name for name, count in Counter(action.name for action in self.actions).items() if count > 1]
        if repeated:
            raise ValueError(f"action name {repeated[0]!r} is used twice; names are unique within a rule")
        return self


def load_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a YAML file, or of every ``*.yaml`` and ``*.yml`` file of a directory, sorted by file name.

    Raises:
        RuleError: the path is missing or empty, a document is no rule, or two rules have the same name.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
    elif path.is_file():
        files = [path]
    else:
        raise RuleError(f"rules {str(path)!r}: no such file or directory")
    loaded = [(file, rule) for file in files for rule in _load_file(file)]
    if not loaded:
        raise RuleError(f"rules {str(path)!r}: no rule in it, allowed are *.yaml files with at least one")
    seen: dict[str, Path] = {}
    for file, rule in loaded:
        if rule.name in seen:
            raise RuleError(f"{file}: name {rule.name!r} is taken by {seen[rule.name]}; names are unique")
        seen[rule.name] = file
    return tuple(rule for _, rule in loaded)


def _load_file(file: Path) -> list[Rule]:
    try:
        documents = [document for document in yaml.safe_load_all(file.read_text("utf-8")) if document is not None]
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RuleError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    return [_read(file, document) for document in documents]


def _read(file: Path, document: Any) -> Rule:
    if not isinstance(document, dict):
        raise RuleError(f"{file}: a rule is a mapping, this is a {type(document).__name__}")
    if "filter_file" in document:
        document = _inline_filter(file, document)
    try:
        return Rule.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "rule"
        raise RuleError(f"{file}: {field} is {first['input']!r}: {first['msg']}") from None


def _inline_filter(file: Path, document: dict[str, Any]) -> dict[str, Any]:
    name = document["filter_file"]
    if "filter" in document:
        raise RuleError(f"{file}: filter and filter_file are both given, allowed is one")
    source = file.parent / str(name)
    if not source.is_file():
        raise RuleError(f"{file}: filter_file is {name!r}: no such file beside it")
    try:
        text = source.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise RuleError(f"{file}: filter_file is {name!r}: not UTF-8: {error}") from None
    rest = {key: value for key, value in document.items() if key != "filter_file"}
    return rest | {"filter": text}
