"""``python -m pipeline why``: what the decision log says of a user, without Flink or Beam."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.cli.kafka_options import add_kafka_options, kafka_config, told
from pipeline.console import one_line
from pipeline.errors import OptionError
from pipeline.job.decision_view import delivery_summary
from pipeline.kafka.topics import TopicError, reading, saying
from transforms.domain.base.calendar import rfc_3339
from transforms.domain.shard.decisions import Decision, decode_decision


def main(argv: Sequence[str]) -> int:
    """Print a user's decisions; 0 there are some, 1 there are none, 2 the log cannot be read."""
    arguments = _parser().parse_args(argv)
    return told(lambda: _why(arguments))


def _why(arguments: argparse.Namespace) -> int:
    found, unreadable = _read(arguments)
    if unreadable:
        sys.stderr.write(f"warning: {unreadable} records are no decisions\n")
    # Those of a user are in order already; a record that came again has a time of its own.
    for decision in sorted(found, key=lambda one: one.time):
        sys.stdout.write(f"{decision.to_json().decode() if arguments.json else shown(decision)}\n")
    if not found:
        sys.stderr.write(
            "nothing found; that a rule did not allow an event is only in the log with --decision_sample\n"
        )
    return 0 if found else 1


def shown(decision: Decision) -> str:
    """A decision as a line for people."""
    one = decision
    rule = one.rule if one.version is None else f"{one.rule} {one.version}"
    event = one.event_id if one.event_name is None else f"{one.event_name} {one.event_id}"
    parts = [f"{rfc_3339(one.time)}  {one.decision:<11}", rule, event]
    if one.action is not None:
        where = f" to {one.destination}" if one.destination is not None else ""
        parts.append(f"action {one.action}{where}, {one.action_id}")
    summary = delivery_summary(one)
    return one_line("  ".join([*parts, summary] if summary else parts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline why",
        description="Print what was decided for a user, in the order of time, from the decision log.",
        allow_abbrev=False,
    )
    parser.add_argument("--user", required=True, metavar="USER", help="user_id")
    parser.add_argument("--event", metavar="EVENT", help="event_id; default: all events")
    parser.add_argument("--rule", metavar="RULE", help="name of a rule; default: all rules")
    log = parser.add_mutually_exclusive_group(required=True)
    log.add_argument("--decisions_topic", metavar="TOPIC", help="as the pipeline's")
    log.add_argument("--decisions_file", type=Path, metavar="FILE", help="as the pipeline's")
    add_kafka_options(parser, required=False)
    parser.add_argument("--json", action="store_true", help="print the records, a JSON object a line")
    return parser


def _read(arguments: argparse.Namespace) -> tuple[list[Decision], int]:
    """The decisions that were asked for, and how many records are none.

    Raises:
        OptionError, TopicError: the log cannot be read as asked.
    """
    found, unreadable = [], 0
    lines = _lines_of_topic(arguments) if arguments.decisions_file is None else _lines_of_file(arguments.decisions_file)
    for line in lines:
        try:
            one = decode_decision(line)
        except ValueError:
            unreadable += 1
            continue
        wanted = ((arguments.user, one.user_id), (arguments.event, one.event_id), (arguments.rule, one.rule))
        if all(given is None or given == value for given, value in wanted):
            found.append(one)
    return found, unreadable


def _lines_of_file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise OptionError(f"--decisions_file is {str(path)!r}: {error.strerror}") from None


def _lines_of_topic(arguments: argparse.Namespace) -> Iterator[bytes]:
    topic: str = arguments.decisions_topic
    if arguments.bootstrap_servers is None:
        raise OptionError("--bootstrap_servers is missing: give HOST:PORT of a broker, or --decisions_file")
    with saying(f"--decisions_topic {topic!r}"), reading(kafka_config(arguments), topic) as reader:
        if not reader.partitions:
            raise TopicError(f"--decisions_topic is {topic!r}: there is no such topic")
        yield from (message.value() for message in reader.records() if message.value() is not None)
