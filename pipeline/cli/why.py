"""``event-trigger why``: prints a user's decisions from the decision log, without Flink or Beam."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.cli.parameters import Brokers, File, Name, Topic
from pipeline.console import did_you_mean, json_line, out, say, warn
from pipeline.errors import OptionError
from pipeline.job.decision_log import DecisionFilter, delivery_summary
from pipeline.kafka.topics import existing_topic
from transforms.domain.base.calendar import rfc_3339
from transforms.domain.shard.decisions import Decision, decode_decision


def why(
    *,
    user: Name,
    event: Name | None = None,
    rule: Name | None = None,
    decisions_topic: Topic | None = None,
    decisions_file: File | None = None,
    brokers: Brokers = Brokers(),
    json: bool = False,
) -> int:
    """Print what was decided for a user, in the order of time, from the decision log.

    0: there are decisions; 1: there are none; 2: the log cannot be read.

    Args:
        user: user_id.
        event: event_id; default: all events.
        rule: name of a rule; default: all rules.
        decisions_topic: as the pipeline's.
        decisions_file: as the pipeline's, instead of a topic.
        json: print the records, a JSON object a line.
    """
    if decisions_topic is None and decisions_file is None:
        raise OptionError("--decisions_topic is missing: give the pipeline's, or --decisions_file")
    if decisions_topic is not None and decisions_file is not None:
        raise OptionError("--decisions_topic and --decisions_file are both given, allowed: one of them")
    lines = _lines_of_topic(decisions_topic, brokers) if decisions_topic else _lines_of_file(decisions_file or Path())
    rules = set[str]()
    decisions, unreadable = _selected(lines, DecisionFilter(user=user, event=event, rule=rule), rules)
    if unreadable:
        warn(f"{unreadable} records are no decisions")
    # A user's decisions are in order except for repeated records.
    for decision in sorted(decisions, key=lambda decision: decision.time):
        if json:
            sys.stdout.write(f"{json_line(decision.to_json().decode())}\n")
        else:
            out(decision_line(decision))
    if not decisions:
        hint = did_you_mean(rule, rules, "--rule=") if rule is not None and rule not in rules else ""
        say(f"nothing found; {hint or 'that a rule did not allow an event is only in the log with --decision_sample'}")
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
    return "  ".join([*parts, summary] if summary else parts)


def _selected(lines: Iterable[bytes], selected: DecisionFilter, rules: set[str]) -> tuple[list[Decision], int]:
    """The selected decisions, and how many records are no decisions; ``rules`` gets the names of all rules."""
    decisions, unreadable = [], 0
    for line in lines:
        try:
            decision = decode_decision(line)
        except ValueError:
            unreadable += 1
            continue
        rules.add(decision.rule)
        if selected.matches(decision):
            decisions.append(decision)
    return decisions, unreadable


def _lines_of_file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            yield from lines
    except OSError as error:
        raise OptionError(f"--decisions_file is {str(path)!r}: {error.strerror}") from None


def _lines_of_topic(topic: str, brokers: Brokers) -> Iterator[bytes]:
    config = brokers.config(", or --decisions_file")
    with existing_topic(config, topic, f"decisions topic {topic!r}") as reader:
        yield from (message.value() for message in reader.records() if message.value() is not None)
