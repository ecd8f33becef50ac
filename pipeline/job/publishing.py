"""Publishing rule sets: what commands and page check before it, and who is named as the publisher."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.kafka.announcements import Announcement, newest_announcement
from pipeline.kafka.cluster_settings import KafkaAdminError, missing_topics
from pipeline.kafka.rules_topic import PublishedSets, RulesTopic
from pipeline.kafka.topics import TopicError
from pipeline.timestamps import shown_time
from transforms.domain.rules.action_topics import check_destinations, topics_of
from transforms.domain.rules.diff import RuleChanges, reused_versions, rule_changes
from transforms.domain.rules.model import Rule, RuleError, WebhookAction
from transforms.domain.rules.sets import RuleSet

REFUSED_NEXT: Final = " (the next release refuses it)"
NOT_CHECKED: Final = "destinations are not checked"


def check_action_topics(config: Mapping[str, str], rules: tuple[Rule, ...]) -> None:
    """Check that the topics of Kafka actions exist.

    Raises:
        RuleError: one does not.
        TopicError: Kafka does not answer.
    """
    try:
        problem = missing_topics(config, topics_of(rules))
    except KafkaAdminError as error:
        raise TopicError(f"topics of actions: {error}") from None
    if problem is not None:
        raise RuleError(f"Kafka actions: {problem}")


def checked_changes(published: PublishedSets, rules: tuple[Rule, ...], base: RuleSet | None = None) -> RuleChanges:
    """What the rules change against the live set, or against ``base`` if none is published yet.

    Raises:
        RuleError: a rule has changed without a new version.
    """
    live = published.live or base
    changes = rule_changes(live.rules if live else (), rules)
    earlier = [(rule_set.number, rule_set.rules) for rule_set in published.sets if rule_set is not live]
    problems = (*changes.problems, *reused_versions(earlier, rules))
    if problems:
        raise RuleError("; ".join(problems))
    return changes


def announced_job(config: Mapping[str, str], audit_topic: str, rules_topic: str) -> Announcement:
    """What the newest job that takes rules from the topic has announced.

    Raises:
        TopicError: none has announced anything, or Kafka does not answer.
    """
    job = newest_announcement(config, audit_topic, rules_topic)
    if job is None:
        raise TopicError(f"no job has announced them on {audit_topic}")
    return job


def has_webhooks(rules: Sequence[Rule]) -> bool:
    """Whether any rule needs a destination."""
    return any(isinstance(action, WebhookAction) for rule in rules for action in rule.actions)


def check_destinations_of(job: Announcement, rules: Sequence[Rule]) -> None:
    """Check that a job has the destinations of rules.

    Raises:
        RuleError: a webhook goes to one that it does not have.
    """
    for rule in rules:
        try:
            check_destinations(rule, job.destinations)
        except RuleError as error:
            launched = f"job {job.job!r}, launched {shown_time(job.at_ms)}"
            raise RuleError(f"{error}, of {launched}: every such action would become destination_unknown") from None


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
        return publisher.publish(rules, author(), note, now_ms())


def author() -> str:
    """Who publishes: the user of this program, and the machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def now_ms() -> int:
    """The time of publishing."""
    return time.time_ns() // 1_000_000
