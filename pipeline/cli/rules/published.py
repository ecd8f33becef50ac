"""``rules publish``, ``rollback`` and ``status``: change the rules of a running job, without Flink or Beam."""

from __future__ import annotations

import argparse
import getpass
import json
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from pipeline.cli.command_line import add_kafka_options, add_topic_option, kafka_config, required
from pipeline.console import one_line
from pipeline.kafka.cluster_settings import KafkaAdminError, missing_topics
from pipeline.kafka.rules_topic import Acknowledgements, PublishedSets, RulesTopic, acknowledgements_since
from pipeline.kafka.topics import TopicError
from pipeline.timestamps import shown_time
from transforms.domain.rules.action_topics import topics_of
from transforms.domain.rules.diff import RuleChanges, reused_versions, rule_changes
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import Acknowledgement, RuleSet, encode_rule_set, shards_behind

# How much the clocks of a publisher and of the brokers may differ.
_CLOCK_SKEW_MS: Final = 600_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all three commands have."""
    parser.add_argument("--rules_topic", metavar="TOPIC", help="topic of rule sets")
    add_kafka_options(parser)


def add_status_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``status``."""
    add_topic_option(parser, "audit_topic")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--wait", type=float, metavar="SECONDS", help="wait until the newest set is live in all shards; 1 if it is not"
    )


def _rules_topic(arguments: argparse.Namespace) -> str:
    return str(required(arguments, "rules_topic", "the topic of rule sets"))


def publish(arguments: argparse.Namespace, rules: tuple[Rule, ...]) -> int:
    """Publish rules whose tests have passed; returns the exit code.

    Raises:
        RuleError: a rule has changed without a new version, or the set is too large for a record.
        TopicError: another publisher began meanwhile, or Kafka refused.
    """
    config = kafka_config(arguments)
    topic = RulesTopic(_rules_topic(arguments), config)
    try:
        problem = missing_topics(config, topics_of(rules))
    except KafkaAdminError as error:
        raise TopicError(f"topics of actions: {error}") from None
    if problem is not None:
        raise RuleError(f"Kafka actions: {problem}")
    if arguments.dry_run:
        published = topic.read()
        changes = _checked_changes(topic.topic, published, rules)
        encode_rule_set(RuleSet(published.highest + 1, rules, _now_ms(), _author(), arguments.note))
        if changes:
            sys.stdout.write(f"would publish set {published.highest + 1}; nothing was published\n")
        return 0
    with topic.publishing() as publisher:
        if _checked_changes(topic.topic, publisher.published, rules):
            rule_set = publisher.publish(rules, _author(), arguments.note, _now_ms())
            sys.stdout.write(f"published set {rule_set.number}\n")
    return 0


def _checked_changes(topic: str, published: PublishedSets, rules: tuple[Rule, ...]) -> RuleChanges:
    """Print and return what the rules change.

    Raises:
        RuleError: a rule has changed without a new version.
    """
    live = published.live
    changes = rule_changes(live.rules if live else (), rules)
    earlier = [(rule_set.number, rule_set.rules) for rule_set in published.sets if rule_set is not live]
    problems = (*changes.problems, *reused_versions(earlier, rules))
    if problems:
        raise RuleError("; ".join(problems))
    before, after = live.versions if live else {}, {rule.name: rule.version for rule in rules}
    base = f"set {live.number} on {topic}" if live else f"{topic}, which has no set yet"
    sys.stdout.write(f"against {base}:{'' if changes else ' nothing changes, nothing is published'}\n")
    sys.stdout.writelines(f"  + {one_line(name)}  version {after[name]}\n" for name in changes.added)
    sys.stdout.writelines(
        f"  ~ {one_line(name)}  version {before[name]} -> {after[name]}\n" for name in changes.changed
    )
    sys.stdout.writelines(f"  - {one_line(name)}  version {before[name]}\n" for name in changes.removed)
    return changes


def _author() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def rollback(arguments: argparse.Namespace) -> int:
    """Publish an earlier set's rules again, under a new number; returns the exit code.

    Raises:
        RuleError: there is no such set, or its rules are live already.
        TopicError: another publisher began meanwhile, or Kafka refused.
    """
    topic = RulesTopic(_rules_topic(arguments), kafka_config(arguments))
    with topic.publishing() as publisher:
        published = publisher.published
        earlier = _earlier_set(topic.topic, published, arguments.to)
        note = arguments.note or f"set {earlier.number} again"
        rule_set = publisher.publish(earlier.rules, _author(), note, _now_ms())
    sys.stdout.write(f"published set {rule_set.number}: the rules of set {earlier.number}\n")
    return 0


def _earlier_set(topic: str, published: PublishedSets, number: int | None) -> RuleSet:
    """The set to go back to; by default the one before the live set.

    Raises:
        RuleError: there is no such set, or its rules are live already.
    """
    live = published.live
    earlier = {rule_set.number: rule_set for rule_set in published.sets if rule_set is not live}
    if live is None or not earlier:
        raise RuleError(f"rules topic {topic!r} has no earlier set to go back to")
    number = max(earlier) if number is None else number
    rule_set = earlier.get(number)
    if rule_set is None:
        raise RuleError(f"--to is {number}, allowed: {', '.join(map(str, earlier))}; live is {live.number}")
    if rule_set.digest == live.digest:
        raise RuleError(f"set {number} has the rules of the live set {live.number}: give another with --to")
    return rule_set


def status(arguments: argparse.Namespace) -> int:
    """Show the sets on the topic, and in which shards the newest is live; returns the exit code.

    Raises:
        TopicError: Kafka does not answer, or a topic is missing.
    """
    config = kafka_config(arguments)
    published = RulesTopic(_rules_topic(arguments), config).read()
    live = published.live
    behind, shards, received = list[int](), 0, list[Acknowledgement]()
    if live is not None:
        # The acknowledgements of the set before tell which shards there are.
        since_ms = published.sets[-2:][0].published_ms - _CLOCK_SKEW_MS
        with acknowledgements_since(arguments.audit_topic, config, max(0, since_ms)) as acknowledgements:
            behind, shards = _wait_until_live(live.number, acknowledgements, arguments.wait or 0.0)
        received = acknowledgements.received
    if arguments.json:
        sys.stdout.write(json.dumps(_status_json(arguments.rules_topic, published, behind, shards, received)) + "\n")
    else:
        _show_status(arguments.rules_topic, published, behind, shards)
    is_live_everywhere = bool(shards) and not behind
    return 1 if arguments.wait is not None and not is_live_everywhere else 0


def _wait_until_live(number: int, acknowledgements: Acknowledgements, wait_s: float) -> tuple[list[int], int]:
    """Wait until all shards have the newest set; returns the shards that have not, and the number of all shards."""
    give_up_s = time.monotonic() + wait_s
    while True:
        behind, shards = shards_behind(number, acknowledgements.received)
        if (shards and not behind) or time.monotonic() >= give_up_s:
            return behind, shards
        acknowledgements.poll(0.1)


def _show_status(topic: str, published: PublishedSets, behind: Sequence[int], shards: int) -> None:
    live = published.live
    for rule_set in reversed(published.sets):
        rules = ", ".join(f"{name} {version}" for name, version in rule_set.versions.items())
        note = f"  ({rule_set.note})" if rule_set.note else ""
        published_at = shown_time(rule_set.published_ms)
        sys.stdout.write(
            one_line(f"set {rule_set.number}  {published_at}  {rule_set.by}{note}") + f"\n    {one_line(rules)}\n"
        )
    for problem in published.unreadable:
        sys.stderr.write(f"warning: {one_line(problem)}\n")
    if live is None:
        sys.stdout.write(f"{topic} has no set\n")
    elif not shards:
        sys.stdout.write(f"set {live.number}: no shard has acknowledged a set\n")
    else:
        missing = f"; not in {', '.join(map(str, behind))}" if behind else ""
        sys.stdout.write(f"set {live.number}: live in {shards - len(behind)} of {shards} shards{missing}\n")


def _status_json(
    topic: str, published: PublishedSets, behind: Sequence[int], shards: int, received: Sequence[Acknowledgement]
) -> dict[str, Any]:
    live = published.live
    return {
        "topic": topic,
        "sets": [
            {
                "number": rule_set.number,
                "published": rule_set.published_ms,
                "by": rule_set.by,
                "note": rule_set.note,
                "rules": rule_set.versions,
            }
            for rule_set in published.sets
        ],
        "unreadable": list(published.unreadable),
        "newest": None
        if live is None
        else {"number": live.number, "shards": shards, "live_in": shards - len(behind), "behind": list(behind)},
        "live": {acknowledgement.shard: acknowledgement.number for acknowledgement in received},
    }
