"""``event-trigger destinations``: which are enabled, and enabling and disabling them, without Flink or Beam."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Message

from pipeline.cli.parameters import Brokers, File, Topic
from pipeline.console import did_you_mean, out, out_json, say
from pipeline.errors import OptionError
from pipeline.kafka.topics import existing_topic, send_control_record
from pipeline.timestamps import shown_time
from transforms.domain.base.names import NAME, NAME_ALLOWED
from transforms.domain.webhooks.delivery_queue import is_switch, switch_record
from transforms.domain.webhooks.destinations import DestinationError, load_destinations
from transforms.domain.webhooks.url_policy import EgressPolicy


@dataclass(frozen=True, slots=True)
class SwitchState:
    """Whether the control topic enables a destination, and since when [ms]; both None if it has no record of it."""

    enabled: bool | None = None
    since_ms: int | None = None


def enable(
    name: str, /, *, control_topic: Topic, brokers: Brokers = Brokers(), destinations: File | None = None
) -> None:
    """Send to a destination again. What it lost meanwhile: `event-trigger dead-letters redrive`.

    0: done; 2: an argument, file or topic cannot be used.

    Args:
        name: name of the destination.
        control_topic: the pipeline's control topic.
        destinations: as the pipeline's.
    """
    _switch(name, True, control_topic, brokers, destinations)


def disable(
    name: str, /, *, control_topic: Topic, brokers: Brokers = Brokers(), destinations: File | None = None
) -> None:
    """Send nothing to a destination; all that waits becomes dead letters.

    0: done; 2: an argument, file or topic cannot be used.

    Args:
        name: name of the destination.
        control_topic: the pipeline's control topic.
        destinations: as the pipeline's.
    """
    _switch(name, False, control_topic, brokers, destinations)


def _switch(name: str, enabled: bool, topic: str, brokers: Brokers, file: Path | None) -> None:
    if not re.fullmatch(NAME, name):
        raise OptionError(f"destination is {name!r}, allowed: {NAME_ALLOWED}")
    if file is not None and name not in (names := _names(file)):
        hint = did_you_mean(name, names)
        raise OptionError(f"destination is {name!r}, allowed: {', '.join(names)}{f'; {hint}' if hint else ''}")
    record = switch_record(name, enabled)
    send_control_record(brokers.config(), topic, name.encode(), record)
    out(f"{name} is {_word(enabled)} from now on: {record.decode()} on {topic}")


def list_all(
    *, control_topic: Topic, brokers: Brokers = Brokers(), destinations: File | None = None, json: bool = False
) -> None:
    """Show each destination, whether it is enabled and since when.

    0: shown; 2: an argument, file or topic cannot be used.

    Args:
        control_topic: the pipeline's control topic.
        destinations: as the pipeline's.
        json: print JSON.
    """
    names = _names(destinations)
    with existing_topic(brokers.config(), control_topic, f"control topic {control_topic!r}") as reader:
        switched = switch_states(reader.records())
    states = {name: switched.get(name, SwitchState()) for name in dict.fromkeys((*names, *sorted(switched)))}
    if json:
        listed = [_document(name, state, names, destinations) for name, state in states.items()]
        out_json({"topic": control_topic, "destinations": listed})
        return
    if destinations is None:
        say("without --destinations=FILE, the job's, only those are listed that were switched")
    elif not states:
        say(f"{destinations} names no destination")
    width = max(map(len, states), default=0)
    for name, state in states.items():
        since = "" if state.since_ms is None else f"  since {shown_time(state.since_ms)}"
        unknown = "  not in the file" if destinations is not None and name not in names else ""
        out(f"{name:<{width}}  {_word(state.enabled is not False):<8}{since}{unknown}")


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
