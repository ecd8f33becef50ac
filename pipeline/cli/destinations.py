"""``python -m pipeline destinations``: which are enabled, and enabling and disabling them, without Flink or Beam."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Message

from pipeline.cli.command_line import CommandGroup, add_kafka_options, kafka_config, required
from pipeline.console import one_line
from pipeline.errors import OptionError
from pipeline.kafka.topics import existing_topic, send_control_record
from pipeline.timestamps import shown_time
from transforms.domain.webhooks.delivery_queue import is_switch, switch_record
from transforms.domain.webhooks.destinations import DestinationError, load_destinations
from transforms.domain.webhooks.url_policy import EgressPolicy


@dataclass(frozen=True, slots=True)
class SwitchState:
    """Whether the control topic enables a destination, and since when [ms]; both None if it has no record of it."""

    enabled: bool | None = None
    since_ms: int | None = None


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; 0 done, 2 an argument, file or topic that cannot be used."""
    parser = CommandGroup("destinations", __doc__)
    list_ = parser.add("list", _list, "show each destination, whether it is enabled and since when")
    list_.add_argument("--json", action="store_true", help="print JSON")
    enable = parser.add("enable", _switch, "send to a destination again; what was lost: `dead-letters redrive`")
    disable = parser.add("disable", _switch, "send nothing to a destination; all that waits becomes dead letters")
    for command in (enable, disable):
        command.set_defaults(enabled=command is enable)
        command.add_argument("name", metavar="NAME", help="of the destination")
    for command in (list_, enable, disable):
        command.add_argument("--control_topic", metavar="TOPIC", help="as the pipeline's")
        add_kafka_options(command)
        command.add_argument("--destinations", type=Path, metavar="FILE", help="as the pipeline's")
    return parser.run(argv)


def _names(file: Path | None) -> list[str]:
    """The destinations' names in a file.

    Raises:
        OptionError: the file cannot be used.
    """
    if file is None:
        return []
    try:
        # Only the names count here; the pipeline checks where webhooks may go.
        return [destination.name for destination in load_destinations(file, EgressPolicy(allow_private=True))]
    except DestinationError as error:
        raise OptionError(str(error)) from None


def _switch(arguments: argparse.Namespace) -> int:
    name, topic = arguments.name, required(arguments, "control_topic", "the pipeline's")
    if not re.fullmatch("[a-z0-9_-]{1,64}", name):
        raise OptionError(f"destination is {name!r}, allowed: 1 to 64 of a-z, 0-9, _ and -")
    if arguments.destinations is not None and name not in (names := _names(arguments.destinations)):
        raise OptionError(f"destination is {name!r}, allowed: {', '.join(names)}")
    record = switch_record(name, arguments.enabled)
    send_control_record(kafka_config(arguments), topic, name.encode(), record)
    sys.stdout.write(f"{name} is {_word(arguments.enabled)} from now on: {record.decode()} on {topic}\n")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    names = _names(arguments.destinations)
    topic = required(arguments, "control_topic", "the pipeline's")
    with existing_topic(kafka_config(arguments), topic, f"control topic {topic!r}") as reader:
        switched = switch_states(reader.records())
    states = {name: switched.get(name, SwitchState()) for name in dict.fromkeys((*names, *sorted(switched)))}
    if arguments.json:
        listed = [_document(name, state, names, arguments.destinations) for name, state in states.items()]
        sys.stdout.write(json.dumps({"topic": topic, "destinations": listed}) + "\n")
        return 0
    width = max(map(len, states), default=0)
    for name, state in states.items():
        since = "" if state.since_ms is None else f"  since {shown_time(state.since_ms)}"
        unknown = "  not in the file" if arguments.destinations is not None and name not in names else ""
        sys.stdout.write(one_line(f"{name:<{width}}  {_word(state.enabled is not False):<8}{since}{unknown}") + "\n")
    return 0


def switch_states(messages: Iterable[Message]) -> dict[str, SwitchState]:
    """The state of each destination, by name, after all records of a control topic."""
    states: dict[str, SwitchState] = {}
    for message in messages:
        try:
            document = orjson.loads(message.value() or b"")
        except orjson.JSONDecodeError:
            continue
        # Several workers may have received the same 410: of equal records in a row the first has the time.
        if is_switch(document) and states.get(document["destination"], SwitchState()).enabled != document["enabled"]:
            states[document["destination"]] = SwitchState(document["enabled"], message.timestamp()[1])
    return states


def _document(name: str, state: SwitchState, names: Sequence[str], file: Path | None) -> dict[str, Any]:
    return {
        "name": name,
        "enabled": state.enabled is not False,
        "since": state.since_ms,
        "in_file": None if file is None else name in names,
    }


def _word(enabled: bool) -> str:
    return "enabled" if enabled else "disabled"
