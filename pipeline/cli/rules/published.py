"""``rules publish``, ``rollback`` and ``status``: rules that change while the job runs, without Flink or Beam."""

from __future__ import annotations

import argparse
import getpass
import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Final

from pipeline.cli.kafka_options import add_kafka_options, kafka_config, told
from pipeline.kafka.rules_topic import Acknowledgements, PublishedSets, RulesTopic
from pipeline.launch.options import Settings
from pipeline.timestamps import shown_time
from transforms.domain.rules.diff import RuleChanges, reused_versions, rule_changes
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import Acknowledgement, RuleSet, encode_rule_set, shards_behind

# The clocks of who publishes and of the brokers may differ by so much.
_CLOCK_SKEW_MS: Final = 600_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags that all three have."""
    parser.add_argument("--rules_topic", required=True, metavar="TOPIC", help="topic of rule sets")
    add_kafka_options(parser)


def add_status_options(parser: argparse.ArgumentParser) -> None:
    """The flags of ``status``."""
    default = Settings.audit_topic
    parser.add_argument(
        "--audit_topic", default=default, metavar="TOPIC", help=f"as the pipeline's (default: {default})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--wait", type=float, metavar="SECONDS", help="wait until the newest set is live in all shards; 1 if it is not"
    )


def publish(arguments: argparse.Namespace, rules: tuple[Rule, ...]) -> int:
    """Publish rules whose tests have passed; the exit code."""
    return _told(lambda: _publish(arguments, rules))


def rollback(arguments: argparse.Namespace) -> int:
    """Publish an earlier set's rules again, under a new number; the exit code."""
    return _told(lambda: _rollback(arguments))


def status(arguments: argparse.Namespace) -> int:
    """Show what is on the topic and which set is live where; the exit code."""
    return _told(lambda: _status(arguments))


def _told(run: Callable[[], int]) -> int:
    try:
        return told(run)
    except RuleError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _publish(arguments: argparse.Namespace, rules: tuple[Rule, ...]) -> int:
    topic = RulesTopic(arguments.rules_topic, kafka_config(arguments))
    if arguments.dry_run:
        published = topic.read()
        changes = _refused_or_shown(topic.topic, published, rules)
        encode_rule_set(RuleSet(published.highest + 1, rules, _now_ms(), _author(), arguments.note))
        if changes:
            sys.stdout.write(f"would publish set {published.highest + 1}; nothing was published\n")
        return 0
    with topic.publishing() as publisher:
        if _refused_or_shown(topic.topic, publisher.published, rules):
            done = publisher.publish(rules, _author(), arguments.note, _now_ms())
            sys.stdout.write(f"published set {done.number}\n")
    return 0


def _refused_or_shown(topic: str, published: PublishedSets, rules: tuple[Rule, ...]) -> RuleChanges:
    """What the rules change, shown.

    Raises:
        RuleError: a version of a rule has another meaning than before.
    """
    live = published.live
    changes = rule_changes(live.rules if live else (), rules)
    earlier = [(one.number, one.rules) for one in published.sets if one is not live]
    problems = (*changes.problems, *reused_versions(earlier, rules))
    if problems:
        raise RuleError("; ".join(problems))
    before, after = live.versions if live else {}, {rule.name: rule.version for rule in rules}
    where = f"set {live.number} on {topic}" if live else f"{topic}, which has no set yet"
    sys.stdout.write(f"against {where}:{'' if changes else ' nothing changes, nothing is published'}\n")
    sys.stdout.writelines(f"  + {name}  version {after[name]}\n" for name in changes.added)
    sys.stdout.writelines(f"  ~ {name}  version {before[name]} -> {after[name]}\n" for name in changes.changed)
    sys.stdout.writelines(f"  - {name}  version {before[name]}\n" for name in changes.removed)
    return changes


def _author() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _rollback(arguments: argparse.Namespace) -> int:
    topic = RulesTopic(arguments.rules_topic, kafka_config(arguments))
    with topic.publishing() as publisher:
        published = publisher.published
        wanted = _earlier(topic.topic, published, arguments.to)
        note = arguments.note or f"set {wanted.number} again"
        done = publisher.publish(wanted.rules, _author(), note, _now_ms())
    sys.stdout.write(f"published set {done.number}: the rules of set {wanted.number}\n")
    return 0


def _earlier(topic: str, published: PublishedSets, number: int | None) -> RuleSet:
    """The set to go back to.

    Raises:
        RuleError: there is none, or it would change nothing.
    """
    live = published.live
    earlier = {one.number: one for one in published.sets if one is not live}
    if live is None or not earlier:
        raise RuleError(f"rules topic {topic!r} has no earlier set to go back to")
    number = max(earlier) if number is None else number
    wanted = earlier.get(number)
    if wanted is None:
        raise RuleError(f"--to is {number}, allowed: {', '.join(map(str, earlier))}; live is {live.number}")
    if wanted.digest == live.digest:
        raise RuleError(f"set {number} has the rules of the live set {live.number}: give another with --to")
    return wanted


def _status(arguments: argparse.Namespace) -> int:
    config = kafka_config(arguments)
    published = RulesTopic(arguments.rules_topic, config).read()
    live = published.live
    if live is None:
        acknowledgements: Any = nullcontext()
    else:
        # From the set before on: its shards are those that the live set is waited for in.
        since_ms = published.sets[-2:][0].published_ms - _CLOCK_SKEW_MS
        acknowledgements = Acknowledgements(arguments.audit_topic, config, max(0, since_ms))
    with acknowledgements as acknowledged:
        behind, shards = _waited(live, acknowledged, arguments.wait or 0.0)
        found = acknowledged.found if acknowledged is not None else []
    if arguments.json:
        sys.stdout.write(json.dumps(_status_json(arguments.rules_topic, published, behind, shards, found)) + "\n")
    else:
        _show_status(arguments.rules_topic, published, behind, shards)
    everywhere = bool(shards) and not behind
    return 1 if arguments.wait is not None and not everywhere else 0


def _waited(live: RuleSet | None, acknowledged: Acknowledgements | None, wait_s: float) -> tuple[list[int], int]:
    """Shards in which the live set is not live after a time, and how many there are."""
    if live is None or acknowledged is None:
        return [], 0
    give_up = time.monotonic() + wait_s
    while True:
        behind, shards = shards_behind(live.number, acknowledged.found)
        if (shards and not behind) or time.monotonic() >= give_up:
            return behind, shards
        acknowledged.read_on(0.1)


def _show_status(topic: str, published: PublishedSets, behind: Sequence[int], shards: int) -> None:
    live = published.live
    for one in reversed(published.sets):
        rules = ", ".join(f"{name} {version}" for name, version in one.versions.items())
        note = f"  ({one.note})" if one.note else ""
        sys.stdout.write(f"set {one.number}  {shown_time(one.published_ms)}  {one.by}{note}\n    {rules}\n")
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
    topic: str, published: PublishedSets, behind: Sequence[int], shards: int, found: Sequence[Acknowledgement]
) -> dict[str, Any]:
    live = published.live
    return {
        "topic": topic,
        "sets": [
            {
                "number": one.number,
                "published": one.published_ms,
                "by": one.by,
                "note": one.note,
                "rules": one.versions,
            }
            for one in published.sets
        ],
        "unreadable": list(published.unreadable),
        "newest": None
        if live is None
        else {"number": live.number, "shards": shards, "live_in": shards - len(behind), "behind": list(behind)},
        "live": {one.shard: one.number for one in found},
    }
