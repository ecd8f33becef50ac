"""``rules explain``: says for each rule why it does or does not fire for an event."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pipeline.cli.rules.file_problems import show_problems
from pipeline.console import lines_of, one_line
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.base.yaml_documents import YamlError, read_documents
from transforms.domain.rules.cases import Case
from transforms.domain.rules.files import read_rule_files
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.explain import explain

_LATEST_MS: Final = 253_402_300_799_000  # the end of the year 9999


def explain_rules(arguments: argparse.Namespace) -> int:
    """Print for each rule whether it fires for an event, and why; returns the exit code."""
    files = read_rule_files(arguments.path, LuaEngines())
    if show_problems(files):
        return 1
    try:
        given = _mapping(arguments.given) if arguments.given is not None else {}
        case = _case_of_event(_mapping(arguments.event), given)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {one_line(' '.join(str(error).split()))}\n")
        return 2
    settings = ShardSettings(history_fields=tuple(arguments.history_fields))
    for loaded in files.rules:
        explanation = explain(loaded, case, settings, LuaEngines())
        outcome = "fires" if explanation.fires else "does not fire"
        sys.stdout.write(f"{explanation.rule.name} version {explanation.rule.version}: {outcome}\n")
        sys.stdout.writelines(f"  {lines_of(line)}\n" for line in [*explanation.problems, *explanation.lines])
    return 0


def _case_of_event(event: dict[str, Any], given: dict[str, Any]) -> Case:
    """A case that ends with the event; its time is ``now`` of ``given``, otherwise the event's timestamp."""
    timestamp_ms = event.get("timestamp")
    if type(timestamp_ms) is int and "now" not in given and 0 < timestamp_ms < _LATEST_MS:
        given = given | {"now": datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat()}
    earlier = given.get("events", [])
    if not isinstance(earlier, list):
        raise ValueError(f"events are {earlier!r}, allowed is a list of those before it")
    return Case.model_validate({"name": "explain", "expect": "nothing"} | given | {"events": [*earlier, event]})


def _mapping(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file that holds one mapping.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file holds something else.
    """
    text = path.read_text("utf-8-sig")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        try:
            value = next((document.value for document in read_documents(text)), None)
        except YamlError as error:
            raise ValueError(f"{path}:{error.line}: neither JSON nor YAML: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: allowed is one mapping, this is a {type(value).__name__}")
    return value
