"""``event-trigger rules publish``, ``rollback`` and ``status``: change the rules of a running job."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from pipeline.cli.parameters import AUDIT_TOPIC, Brokers, Count, Topic
from pipeline.cli.rules.command import History, passing_rules
from pipeline.console import complain, out, out_json, warn
from pipeline.kafka.cluster_settings import KafkaAdminError, missing_topics
from pipeline.kafka.rules_topic import Acknowledgements, PublishedSets, RulesTopic, acknowledgements_since
from pipeline.kafka.topics import TopicError
from pipeline.timestamps import shown_time
from transforms.domain.rules.action_topics import topics_of
from transforms.domain.rules.diff import RuleChanges, reused_versions, rule_changes
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import Acknowledgement, RuleSet, encode_rule_set, shards_behind

Note = Annotated[str, Parameter(metavar="TEXT")]

# How much the clocks of a publisher and of the brokers may differ.
_CLOCK_SKEW_MS: Final = 600_000


def publish(
    path: Path,
    /,
    *,
    rules_topic: Topic,
    brokers: Brokers = Brokers(),
    note: Note = "",
    dry_run: bool = False,
    history: History = History(),
) -> int:
    """Test every rule, then make the rules live in running jobs.

    0: published, or nothing changes; 1: a rule or a case is no good; 2: an option or topic cannot be used.

    Args:
        path: rule file or directory.
        rules_topic: topic of rule sets.
        note: why; `rules status` shows it.
        dry_run: test and compare, publish nothing.
    """
    files = passing_rules(path, history, rules_topic=rules_topic)
    if files is None:
        complain("nothing was published")
        return 1
    rules, config = tuple(loaded.rule for loaded in files.rules), brokers.config()
    topic = RulesTopic(rules_topic, config)
    try:
        problem = missing_topics(config, topics_of(rules))
    except KafkaAdminError as error:
        raise TopicError(f"topics of actions: {error}") from None
    if problem is not None:
        raise RuleError(f"Kafka actions: {problem}")
    if dry_run:
        published = topic.read()
        changes = _checked_changes(topic.topic, published, rules)
        encode_rule_set(RuleSet(published.highest + 1, rules, _now_ms(), _author(), note))
        if changes:
            out(f"would publish set {published.highest + 1}; nothing was published")
        return 0
    with topic.publishing() as publisher:
        if _checked_changes(topic.topic, publisher.published, rules):
            out(f"published set {publisher.publish(rules, _author(), note, _now_ms()).number}")
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
    out(f"against {base}:{'' if changes else ' nothing changes, nothing is published'}")
    for name in changes.added:
        out(f"  + {name}  version {after[name]}")
    for name in changes.changed:
        out(f"  ~ {name}  version {before[name]} -> {after[name]}")
    for name in changes.removed:
        out(f"  - {name}  version {before[name]}")
    return changes


def _author() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def rollback(*, rules_topic: Topic, brokers: Brokers = Brokers(), to: Count | None = None, note: Note = "") -> None:
    """Make an earlier set's rules live again, under a new number.

    0: published; 1: there is no such set, or its rules are live already; 2: an option or topic cannot be used.

    Args:
        rules_topic: topic of rule sets.
        to: number of the set; default: the set before the live one.
        note: why; `rules status` shows it.
    """
    topic = RulesTopic(rules_topic, brokers.config())
    with topic.publishing() as publisher:
        earlier = _earlier_set(topic.topic, publisher.published, to)
        rule_set = publisher.publish(earlier.rules, _author(), note or f"set {earlier.number} again", _now_ms())
    out(f"published set {rule_set.number}: the rules of set {earlier.number}")


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


def status(
    *,
    rules_topic: Topic,
    audit_topic: Topic = AUDIT_TOPIC,
    brokers: Brokers = Brokers(),
    wait: Annotated[float | None, Parameter(metavar="SECONDS")] = None,
    json: bool = False,
) -> int:
    """Show the published sets, and which is live in which user shards.

    0: shown; 1: the newest set is not live everywhere after --wait; 2: an option or topic cannot be used.

    Args:
        rules_topic: topic of rule sets.
        audit_topic: as the pipeline's.
        wait: wait until the newest set is live in all shards.
        json: print JSON.
    """
    config = brokers.config()
    published = RulesTopic(rules_topic, config).read()
    live = published.live
    behind, shards, received = list[int](), 0, list[Acknowledgement]()
    if live is not None:
        # The acknowledgements of the set before tell which shards there are.
        since_ms = published.sets[-2:][0].published_ms - _CLOCK_SKEW_MS
        with acknowledgements_since(audit_topic, config, max(0, since_ms)) as acknowledgements:
            behind, shards = _wait_until_live(live.number, acknowledgements, wait or 0.0)
        received = acknowledgements.received
    if json:
        out_json(_status_json(rules_topic, published, behind, shards, received))
    else:
        _show_status(rules_topic, published, behind, shards)
    is_live_everywhere = bool(shards) and not behind
    return 1 if wait is not None and not is_live_everywhere else 0


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
        out(f"set {rule_set.number}  {published_at}  {rule_set.by}{note}")
        out(f"    {rules}")
    for problem in published.unreadable:
        warn(problem)
    if live is None:
        out(f"{topic} has no set")
    elif not shards:
        out(f"set {live.number}: no shard has acknowledged a set")
    else:
        missing = f"; not in {', '.join(map(str, behind))}" if behind else ""
        out(f"set {live.number}: live in {shards - len(behind)} of {shards} shards{missing}")


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
