"""``event-trigger rules explain``: says for each rule why it does or does not fire for an event."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipeline.cli.parameters import File
from pipeline.cli.rules.command import History
from pipeline.cli.rules.file_problems import checked_rules, usable_rules
from pipeline.console import one_line, out
from pipeline.errors import OptionError
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.base.checked_documents import place_of
from transforms.domain.base.model_errors import allowed
from transforms.domain.base.yaml_documents import YamlError, read_documents
from transforms.domain.rules.cases import Case
from transforms.domain.simulation.explain import explain

_LATEST_MS: Final = 253_402_300_799_000  # the end of the year 9999


def explain_rules(
    path: Path,
    /,
    *,
    event: File,
    given: File | None = None,
    history: History = History(),
) -> int:
    """Say for each rule why it does or does not fire for an event.

    0: said; 1: a rule cannot be used; 2: a file cannot be read.

    Args:
        path: rule file or directory.
        event: the event, JSON or YAML.
        given: what is known before it: profile, visit, history, now, events, as in tests.
    """
    files = usable_rules(checked_rules(path, to_publish=False, is_strict=False))
    if files is None:
        return 1
    try:
        case = _case_of_event(_mapping(event), _mapping(given) if given is not None else {})
    except ValueError as error:
        raise OptionError(" ".join(str(error).split())) from None
    settings = history.settings()
    for loaded in files.rules:
        explanation = explain(loaded, case, settings, LuaEngines())
        outcome = "fires" if explanation.fires else "does not fire"
        out(f"{explanation.rule.name} version {explanation.rule.version}: {outcome}")
        for line in [*explanation.problems, *explanation.lines]:
            out(*(f"  {part}" for part in line.split("\n")))
    return 0


def _case_of_event(event: dict[str, Any], given: dict[str, Any]) -> Case:
    """A case that ends with the event; its time is ``now`` of ``given``, otherwise the event's timestamp."""
    timestamp_ms = event.get("timestamp")
    if type(timestamp_ms) is int and "now" not in given and 0 < timestamp_ms < _LATEST_MS:
        given = given | {"now": datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat()}
    earlier = given.get("events", [])
    if not isinstance(earlier, list):
        raise ValueError(f"events are {earlier!r}, allowed is a list of those before it")
    if isinstance(event.get("user_id"), str):  # earlier events are of the same user unless they say otherwise
        earlier = [{"user_id": event["user_id"]} | before if isinstance(before, dict) else before for before in earlier]
    fields = {"name": "explain", "expect": "nothing"} | given | {"events": [*earlier, event]}
    try:
        return Case.model_validate(fields)
    except ValidationError as error:
        details = error.errors()[0]
        name = ".".join(map(str, place_of(fields, details["loc"])[1])) or "event"
        raise ValueError(f"{name} is {one_line(repr(details['input']))[:100]}: {allowed(details)}") from None


def _mapping(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file that holds one mapping.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file holds something else.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
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
