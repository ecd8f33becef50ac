"""``python -m pipeline why``: prints a user's decisions from the decision log, without Flink or Beam."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.cli.command_line import add_kafka_options, exit_code_of, kafka_config, required, with_options
from pipeline.console import json_line, one_line
from pipeline.errors import OptionError
from pipeline.job.decision_log import DecisionFilter, delivery_summary
from pipeline.kafka.topics import TopicError, open_reader, topic_errors
from transforms.domain.base.calendar import rfc_3339
from transforms.domain.shard.decisions import Decision, decode_decision


def main(argv: Sequence[str]) -> int:
    """Print a user's decisions; 0 there are some, 1 there are none, 2 the log cannot be read."""
    arguments = _parser().parse_args(argv)
    return exit_code_of(lambda: _why(arguments))


def _why(arguments: argparse.Namespace) -> int:
    decisions, unreadable = _read(with_options(arguments))
    if unreadable:
        sys.stderr.write(f"warning: {unreadable} records are no decisions\n")
    # A user's decisions are in order except for repeated records.
    for decision in sorted(decisions, key=lambda decision: decision.time):
        sys.stdout.write(f"{json_line(decision.to_json().decode()) if arguments.json else decision_line(decision)}\n")
    if not decisions:
        sys.stderr.write(
            "nothing found; that a rule did not allow an event is only in the log with --decision_sample\n"
        )
    return 0 if decisions else 1


def decision_line(decision: Decision) -> str:
    """A decision as a line of text."""
    rule = decision.rule if decision.version is None else f"{decision.rule} {decision.version}"
    event = decision.event_id if decision.event_name is None else f"{decision.event_name} {decision.event_id}"
    parts = [f"{rfc_3339(decision.time)}  {decision.decision:<11}", rule, event]
    if decision.action is not None:
        destination = f" to {decision.destination}" if decision.destination is not None else ""
        parts.append(f"action {decision.action}{destination}, {decision.action_id}")
    summary = delivery_summary(decision)
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
    log = parser.add_mutually_exclusive_group()
    log.add_argument("--decisions_topic", metavar="TOPIC", help="as the pipeline's")
    log.add_argument("--decisions_file", type=Path, metavar="FILE", help="as the pipeline's")
    add_kafka_options(parser)
    parser.add_argument("--json", action="store_true", help="print the records, a JSON object a line")
    return parser


def _read(arguments: argparse.Namespace) -> tuple[list[Decision], int]:
    """The selected decisions, and the number of records that are no decisions.

    Raises:
        OptionError: the file cannot be read, or no broker is given.
        TopicError: the topic cannot be read.
    """
    decisions, unreadable = [], 0
    selected = DecisionFilter(user=arguments.user, event=arguments.event, rule=arguments.rule)
    lines = _lines_of_topic(arguments) if arguments.decisions_file is None else _lines_of_file(arguments.decisions_file)
    for line in lines:
        try:
            decision = decode_decision(line)
        except ValueError:
            unreadable += 1
            continue
        if selected.matches(decision):
            decisions.append(decision)
    return decisions, unreadable


def _lines_of_file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise OptionError(f"--decisions_file is {str(path)!r}: {error.strerror}") from None


def _lines_of_topic(arguments: argparse.Namespace) -> Iterator[bytes]:
    topic = required(arguments, "decisions_topic", "the pipeline's, or --decisions_file")
    with topic_errors(f"--decisions_topic {topic!r}"), open_reader(kafka_config(arguments), topic) as reader:
        if not reader.partitions:
            raise TopicError(f"--decisions_topic is {topic!r}: there is no such topic")
        yield from (message.value() for message in reader.records() if message.value() is not None)
