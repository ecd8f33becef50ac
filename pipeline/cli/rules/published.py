"""``event-trigger rules publish``, ``rollback`` and ``status``: change the rules of a running job."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from pipeline.cli.parameters import AUDIT_TOPIC, EVENTS_TOPIC, Brokers, Count, Topic
from pipeline.cli.rules.announced import check_announced
from pipeline.cli.rules.command import History, Schema, passing_rules
from pipeline.cli.rules.history import set_document, set_line
from pipeline.cli.rules.trial import Trial
from pipeline.console import complain, out, out_json, warn
from pipeline.errors import OptionError
from pipeline.job.publishing import author, check_action_topics, checked_changes, now_ms, publish_after
from pipeline.job.rule_diff import change_lines
from pipeline.kafka.rules_topic import Acknowledgements, PublishedSets, RulesTopic, acknowledgements_since
from pipeline.launch.options import Settings
from pipeline.launch.options.validation import check_combinations
from transforms.domain.rules.diff import RuleChanges
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import Acknowledgement, RuleSet, encode_rule_set, shards_behind

Note = Annotated[str, Parameter(metavar="TEXT")]

# How much the clocks of a publisher and of the brokers may differ.
_CLOCK_SKEW_MS: Final = 600_000
_BACKTEST_EVENTS: Final = 10_000
_MOST_BACKTEST_EVENTS: Final = 1_000_000


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Past:
    """Which events a change is tried on.

    Args:
        events_topic: as the pipeline's: a change is tried on its newest events.
        backtest_events: so many of them, for 10 s at most; 0: none.
        user_api_url: for that: where users are loaded from, as the pipeline's.
        user_api_token: for that: as the pipeline's.
    """

    events_topic: Topic = EVENTS_TOPIC
    backtest_events: Count = _BACKTEST_EVENTS
    user_api_url: Annotated[str | None, Parameter(metavar="URL")] = None
    user_api_token: Annotated[str | None, Parameter(metavar="REFERENCE")] = None

    def check(self) -> None:
        """Raise an ``OptionError`` for a number that is not allowed."""
        if not 0 <= self.backtest_events <= _MOST_BACKTEST_EVENTS:
            raise OptionError(f"--backtest_events is {self.backtest_events}, allowed: 0 to {_MOST_BACKTEST_EVENTS}")

    def trial(self, path: Path, brokers: Brokers, history: History) -> Trial:
        """What tries a change on these events.

        Raises:
            OptionError: an option of the user API cannot be used.
        """
        settings = Settings(**history.given(), user_api_url=self.user_api_url, user_api_token=self.user_api_token)
        if settings.user_api_url is not None or settings.user_api_token is not None:
            check_combinations(
                settings.model_copy(update={"bootstrap_servers": brokers.bootstrap_servers, "rules": path})
            )
        return Trial(brokers.config(), self.events_topic, self.backtest_events, settings.shard(()), settings.user_api())


def publish(
    path: Path,
    /,
    *,
    rules_topic: Topic,
    audit_topic: Topic = AUDIT_TOPIC,
    brokers: Brokers = Brokers(),
    note: Note = "",
    dry_run: bool = False,
    yes: bool = False,
    schema: Schema = None,
    history: History = History(),
    past: Past = Past(),
) -> int:
    """Test every rule, then make the rules live in running jobs.

    Shows what differs from the live set and what that changes for the newest events; in a terminal it asks then. A
    webhook to a destination that the job does not have is refused.

    0: published, or nothing changes; 1: a rule or a case is no good, or the answer was no; 2: an option or topic
    cannot be used.

    Args:
        path: rule file or directory.
        rules_topic: topic of rule sets.
        audit_topic: as the pipeline's: there the job has announced its destinations.
        note: why; `rules status` shows it.
        dry_run: test and compare, publish nothing.
        yes: publish without a question; without a terminal there is none.
    """
    past.check()
    files = passing_rules(path, history, schema=schema, rules_topic=rules_topic)
    if files is None:
        complain("nothing was published")
        return 1
    rules, config = tuple(loaded.rule for loaded in files.rules), brokers.config()
    topic = RulesTopic(rules_topic, config)
    check_action_topics(config, rules)
    check_announced(config, audit_topic, rules_topic, rules, history)
    published = topic.read()
    changes = checked_changes(published, rules)
    out(*changes_lines(topic.topic, published, rules, changes))
    if not changes:
        return 0
    live = published.live
    if live is not None:
        trial = past.trial(path, brokers, history)
        out(*trial.lines(live.rules, rules, (f"set {live.number}", str(path))))
    if dry_run:
        encode_rule_set(RuleSet(published.highest + 1, rules, now_ms(), author(), note))
        out(f"would publish set {published.highest + 1}; nothing was published")
        return 0
    if not yes and not confirmed(f"publish set {published.highest + 1}?"):
        out("nothing was published")
        return 1
    out(f"published set {publish_after(topic, published, rules, note).number}")
    return 0


def confirmed(question: str) -> bool:
    """Ask in a terminal, where everything but y is no; a program is not asked."""
    if sys.stdin is None or not sys.stdin.isatty():
        return True
    sys.stdout.write(f"{question} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def changes_lines(topic: str, published: PublishedSets, rules: tuple[Rule, ...], changes: RuleChanges) -> list[str]:
    """The changes: a line for each rule, and below it what differs."""
    live = published.live
    base = f"set {live.number} on {topic}" if live else f"{topic}, which has no set yet"
    first = f"against {base}:{'' if changes else ' nothing changes, nothing is published'}"
    return [first, *(f"  {line}" for line in change_lines(live.rules if live else (), rules, changes))]


def rollback(*, rules_topic: Topic, brokers: Brokers = Brokers(), to: Count | None = None, note: Note = "") -> None:
    """Make an earlier set's rules live again, under a new number.

    0: published; 1: there is no such set, or its rules are live already; 2: an option or topic cannot be used.

    Args:
        rules_topic: topic of rule sets.
        to: number of the set; default: the set before the live one.
        note: why; `rules status` shows it.
    """
    topic = RulesTopic(rules_topic, brokers.config())
    _earlier_set(topic.topic, topic.read(), to)  # a topic that is not there is not made
    with topic.publishing() as publisher:
        earlier = _earlier_set(topic.topic, publisher.published, to)
        rule_set = publisher.publish(earlier.rules, author(), note or f"set {earlier.number} again", now_ms())
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
        give_up_s = time.monotonic() + (wait or 0.0)
        with _acknowledgements(audit_topic, config, published) as acknowledgements:
            behind, shards = _wait_until_live(live.number, acknowledgements, lambda: time.monotonic() >= give_up_s)
        received = acknowledgements.received
    if json:
        out_json(_status_json(rules_topic, published, behind, shards, received))
    else:
        _show_status(rules_topic, published, behind, shards)
    is_live_everywhere = bool(shards) and not behind
    return 1 if wait is not None and not is_live_everywhere else 0


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
        out(set_line(rule_set), f"    {rules}")
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
        "sets": [set_document(rule_set) for rule_set in published.sets],
        "unreadable": list(published.unreadable),
        "newest": None
        if live is None
        else {"number": live.number, "shards": shards, "live_in": shards - len(behind), "behind": list(behind)},
        "live": {acknowledgement.shard: acknowledgement.number for acknowledgement in received},
    }
