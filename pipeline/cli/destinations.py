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

from pipeline.cli.kafka_options import add_kafka_options, kafka_config, told
from pipeline.cli.subcommands import subcommands
from pipeline.errors import OptionError
from pipeline.kafka.topics import TopicError, TopicWriter, reading, saying
from pipeline.timestamps import shown_time
from transforms.domain.webhooks.delivery_queue import is_switch, switch_record
from transforms.domain.webhooks.destinations import DestinationError, load_destinations
from transforms.domain.webhooks.url_policy import EgressPolicy


@dataclass(frozen=True, slots=True)
class Switched:
    """What the control topic says of a destination, and since when [ms]; both None: nothing."""

    enabled: bool | None = None
    since_ms: int | None = None


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; 0 done, 2 an argument, file or topic that cannot be used."""
    arguments = _parser().parse_args(argv)
    return told(lambda: int(arguments.run(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline destinations", description=__doc__, allow_abbrev=False)
    commands = subcommands(parser)
    list_ = commands.add_parser("list", help="show each destination, whether it is enabled and since when")
    list_.add_argument("--json", action="store_true", help="print JSON")
    list_.set_defaults(run=_list)
    enable = commands.add_parser("enable", help="send to a destination again; what was lost: `dead-letters redrive`")
    enable.set_defaults(run=_switch, enabled=True)
    disable = commands.add_parser("disable", help="send nothing to a destination; all that waits becomes dead letters")
    disable.set_defaults(run=_switch, enabled=False)
    for one in (enable, disable):
        one.add_argument("name", metavar="NAME", help="of the destination")
    for one in (list_, enable, disable):
        one.add_argument("--control_topic", required=True, metavar="TOPIC", help="as the pipeline's")
        add_kafka_options(one)
        one.add_argument("--destinations", type=Path, metavar="FILE", help="as the pipeline's")
    return parser


def _names(file: Path | None) -> list[str]:
    """Names of a destinations file.

    Raises:
        OptionError: it cannot be used.
    """
    if file is None:
        return []
    try:
        # Where webhooks may go is for the pipeline to say: here they are only names.
        return [one.name for one in load_destinations(file, EgressPolicy(allow_private=True))]
    except DestinationError as error:
        raise OptionError(str(error)) from None


def _switch(arguments: argparse.Namespace) -> int:
    name, topic = arguments.name, arguments.control_topic
    if not re.fullmatch("[a-z0-9_-]{1,64}", name):
        raise OptionError(f"destination is {name!r}, allowed: 1 to 64 of a-z, 0-9, _ and -")
    if arguments.destinations is not None and name not in (names := _names(arguments.destinations)):
        raise OptionError(f"destination is {name!r}, allowed: {', '.join(names)}")
    failed: list[str] = []
    what = f"control topic {topic!r}"
    with saying(what):
        writer = TopicWriter(kafka_config(arguments))
        if topic not in writer.topics():
            raise TopicError(f"{what} does not exist")
        record = switch_record(name, arguments.enabled)
        writer.write(topic, name.encode(), record, told=lambda error: failed.append(error) if error else None)
        if writer.flush():
            failed.append("no answer")
    if failed:
        raise TopicError(f"{what}: {failed[0]}")
    sys.stdout.write(f"{name} is {_word(arguments.enabled)} from now on: {record.decode()} on {topic}\n")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    names = _names(arguments.destinations)
    topic = arguments.control_topic
    with saying(f"control topic {topic!r}"), reading(kafka_config(arguments), topic) as reader:
        if not reader.partitions:
            raise TopicError(f"control topic {topic!r} does not exist")
        found = switches(reader.records())
    shown = {name: found.get(name, Switched()) for name in dict.fromkeys((*names, *sorted(found)))}
    if arguments.json:
        listed = [_public(name, one, names, arguments.destinations) for name, one in shown.items()]
        sys.stdout.write(json.dumps({"topic": topic, "destinations": listed}) + "\n")
        return 0
    width = max(map(len, shown), default=0)
    for name, one in shown.items():
        since = "" if one.since_ms is None else f"  since {shown_time(one.since_ms)}"
        unknown = "  not in the file" if arguments.destinations is not None and name not in names else ""
        sys.stdout.write(f"{name:<{width}}  {_word(one.enabled is not False):<8}{since}{unknown}\n")
    return 0


def switches(messages: Iterable[Message]) -> dict[str, Switched]:
    """By name of the destination what a control topic's records come to."""
    found: dict[str, Switched] = {}
    for message in messages:
        try:
            document = orjson.loads(message.value() or b"")
        except orjson.JSONDecodeError:
            continue
        # Since the first of those that say so in a row: several workers may have met the same 410.
        if is_switch(document) and found.get(document["destination"], Switched()).enabled is not document["enabled"]:
            found[document["destination"]] = Switched(document["enabled"], message.timestamp()[1])
    return found


def _public(name: str, one: Switched, names: Sequence[str], file: Path | None) -> dict[str, Any]:
    return {
        "name": name,
        "enabled": one.enabled is not False,
        "since": one.since_ms,
        "in_file": None if file is None else name in names,
    }


def _word(enabled: bool) -> str:
    return "enabled" if enabled else "disabled"
