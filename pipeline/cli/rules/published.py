"""``rules publish``, ``rollback`` and ``status``: change the rules of a running job, without Flink or Beam."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pipeline.cli.command_line import add_kafka_options, add_topic_option, kafka_config
from pipeline.cli.rules.rule_diff import difference_lines
from pipeline.cli.rules.trial import Trial
from pipeline.kafka.rules_topic import Acknowledgements, PublishedSets, RulesTopic, acknowledgements_since
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import Settings
from pipeline.launch.options.validation import check_combinations
from pipeline.timestamps import shown_time
from transforms.domain.rules.diff import RuleChanges, reused_versions, rule_changes
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import Acknowledgement, RuleSet, encode_rule_set, shards_behind

# How much the clocks of a publisher and of the brokers may differ.
_CLOCK_SKEW_MS: Final = 600_000
_BACKTEST_EVENTS: Final = 10_000
_MOST_BACKTEST_EVENTS: Final = 1_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all three commands have."""
    parser.add_argument("--rules_topic", required=True, metavar="TOPIC", help="topic of rule sets")
    add_kafka_options(parser)


def add_publish_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``publish``, without those of the rules' tests."""
    parser.add_argument("--dry_run", action="store_true", help="test and compare, publish nothing")
    parser.add_argument(
        "--yes", action="store_true", help="publish without a question; without a terminal there is none"
    )
    add_topic_option(parser, "events_topic")
    parser.add_argument(
        "--backtest_events",
        type=_event_count,
        default=_BACKTEST_EVENTS,
        metavar="EVENTS",
        help=f"newest events that the change is tried on, for 10 s at most; 0: none (default: {_BACKTEST_EVENTS})",
    )
    parser.add_argument(
        "--user_api_url", metavar="URL", help="for that: where users are loaded from, as the pipeline's"
    )
    parser.add_argument("--user_api_token", metavar="REFERENCE", help="for that: as the pipeline's")


def _event_count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > _MOST_BACKTEST_EVENTS:
        raise argparse.ArgumentTypeError(f"{text!r}, allowed: 0 to {_MOST_BACKTEST_EVENTS} events")
    return int(text)


def add_status_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``status``."""
    add_topic_option(parser, "audit_topic")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--wait", type=float, metavar="SECONDS", help="wait until the newest set is live in all shards; 1 if it is not"
    )


def publish(arguments: argparse.Namespace, rules: tuple[Rule, ...]) -> int:
    """Publish rules whose tests have passed, after a question in a terminal; returns the exit code.

    Raises:
        RuleError: a rule has changed without a new version, or the set is too large for a record.
        TopicError: another publisher began meanwhile, or Kafka refused.
    """
    topic = RulesTopic(arguments.rules_topic, kafka_config(arguments))
    published = topic.read()
    changes = checked_changes(published, rules)
    sys.stdout.write(changes_text(topic.topic, published, rules, changes))
    if not changes:
        return 0
    live = published.live
    if live is not None:
        sys.stdout.write(_trial(arguments).text(live.rules, rules, (f"set {live.number}", str(arguments.path))))
    sys.stdout.flush()
    if arguments.dry_run:
        encode_rule_set(RuleSet(published.highest + 1, rules, _now_ms(), _author(), arguments.note))
        sys.stdout.write(f"would publish set {published.highest + 1}; nothing was published\n")
        return 0
    if not arguments.yes and not confirmed(f"publish set {published.highest + 1}?"):
        sys.stdout.write("nothing was published\n")
        return 1
    rule_set = publish_after(topic, published, rules, arguments.note)
    sys.stdout.write(f"published set {rule_set.number}\n")
    return 0


def publish_after(topic: RulesTopic, shown: PublishedSets, rules: tuple[Rule, ...], note: str) -> RuleSet:
    """Publish a set, provided that the topic still has the sets against which it was checked.

    Raises:
        RuleError: the set is too large for a record.
        TopicError: the topic has another set, another publisher began meanwhile, or Kafka refused.
    """
    with topic.publishing() as publisher:
        if publisher.published.highest != shown.highest:
            raise TopicError(
                f"rules topic {topic.topic!r}: set {publisher.published.highest} was published meanwhile; publish "
                "again to see what changes against it"
            )
        return publisher.publish(rules, _author(), note, _now_ms())


def _trial(arguments: argparse.Namespace) -> Trial:
    settings = Settings(
        history_fields=tuple(arguments.history_fields),
        history_size=arguments.history_size,
        user_api_url=arguments.user_api_url,
        user_api_token=arguments.user_api_token,
    )
    if settings.user_api_url is not None or settings.user_api_token is not None:
        check_combinations(replace(settings, bootstrap_servers=arguments.bootstrap_servers, rules=arguments.path))
    return Trial(
        kafka_config(arguments),
        arguments.events_topic,
        arguments.backtest_events,
        settings.shard(()),
        settings.user_api(),
    )


def confirmed(question: str) -> bool:
    """Ask in a terminal, where everything but y is no; a program is not asked."""
    if sys.stdin is None or not sys.stdin.isatty():
        return True
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def checked_changes(published: PublishedSets, rules: tuple[Rule, ...]) -> RuleChanges:
    """What the rules change against the live set.

    Raises:
        RuleError: a rule has changed without a new version.
    """
    live = published.live
    changes = rule_changes(live.rules if live else (), rules)
    earlier = [(rule_set.number, rule_set.rules) for rule_set in published.sets if rule_set is not live]
    problems = (*changes.problems, *reused_versions(earlier, rules))
    if problems:
        raise RuleError("; ".join(problems))
    return changes


def changes_text(topic: str, published: PublishedSets, rules: tuple[Rule, ...], changes: RuleChanges) -> str:
    """The changes as text: a line for each rule, and below it what differs."""
    live = published.live
    before = {rule.name: rule for rule in live.rules} if live else {}
    after = {rule.name: rule for rule in rules}
    base = f"set {live.number} on {topic}" if live else f"{topic}, which has no set yet"
    lines = [f"against {base}:{'' if changes else ' nothing changes, nothing is published'}"]
    lines += [f"  + {name}  version {after[name].version}" for name in changes.added]
    for name in changes.changed:
        lines.append(f"  ~ {name}  version {before[name].version} -> {after[name].version}")
        lines += [f"      {line}" for line in difference_lines(before[name], after[name])]
    lines += [f"  - {name}  version {before[name].version}" for name in changes.removed]
    return "\n".join([*lines, ""])


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
    topic = RulesTopic(arguments.rules_topic, kafka_config(arguments))
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
    published = RulesTopic(arguments.rules_topic, config).read()
    live = published.live
    behind, shards, received = list[int](), 0, list[Acknowledgement]()
    if live is not None:
        give_up_s = time.monotonic() + (arguments.wait or 0.0)
        with _acknowledgements(arguments.audit_topic, config, published) as acknowledgements:
            behind, shards = _wait_until_live(live.number, acknowledgements, lambda: time.monotonic() >= give_up_s)
        received = acknowledgements.received
    if arguments.json:
        sys.stdout.write(json.dumps(_status_json(arguments.rules_topic, published, behind, shards, received)) + "\n")
    else:
        _show_status(arguments.rules_topic, published, behind, shards)
    is_live_everywhere = bool(shards) and not behind
    return 1 if arguments.wait is not None and not is_live_everywhere else 0


def live_shards(
    audit_topic: str, config: Mapping[str, str], number: int, rules_topic: RulesTopic, is_over: Callable[[], bool]
) -> tuple[int, int]:
    """Wait until all shards have a set, or ``is_over``; returns in how many it is live, and the number of all.

    Raises:
        TopicError: Kafka does not answer, or the audit topic is missing.
    """
    with _acknowledgements(audit_topic, config, rules_topic.read()) as acknowledgements:
        behind, shards = _wait_until_live(number, acknowledgements, is_over)
    return shards - len(behind), shards


def _acknowledgements(
    audit_topic: str, config: Mapping[str, str], published: PublishedSets
) -> contextlib.AbstractContextManager[Acknowledgements]:
    # The acknowledgements of the set before tell which shards there are.
    since_ms = published.sets[-2:][0].published_ms - _CLOCK_SKEW_MS
    return acknowledgements_since(audit_topic, config, max(0, since_ms))


def _wait_until_live(
    number: int, acknowledgements: Acknowledgements, is_over: Callable[[], bool]
) -> tuple[list[int], int]:
    """Wait until all shards have the newest set; returns the shards that have not, and the number of all shards."""
    while True:
        behind, shards = shards_behind(number, acknowledgements.received)
        if (shards and not behind) or is_over():
            return behind, shards
        acknowledgements.poll(0.1)


def _show_status(topic: str, published: PublishedSets, behind: Sequence[int], shards: int) -> None:
    live = published.live
    for rule_set in reversed(published.sets):
        rules = ", ".join(f"{name} {version}" for name, version in rule_set.versions.items())
        note = f"  ({rule_set.note})" if rule_set.note else ""
        published_at = shown_time(rule_set.published_ms)
        sys.stdout.write(f"set {rule_set.number}  {published_at}  {rule_set.by}{note}\n    {rules}\n")
    for problem in published.unreadable:
        sys.stderr.write(f"warning: {problem}\n")
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
