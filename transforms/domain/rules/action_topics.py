"""Which topics a rule's Kafka action may write. Rules are written by people who do not operate the job."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from transforms.domain.rules.model import KafkaAction, Rule, RuleError, WebhookAction


@dataclass(frozen=True, slots=True)
class ActionTopics:
    """The topics that Kafka actions may write.

    Attributes:
        own: the job's own topics. No pattern allows them.
        allowed: names and patterns (``*``, ``?``); None: every topic that is not the job's own or Kafka's.
    """

    own: tuple[str, ...] = ()
    allowed: tuple[str, ...] | None = None

    def problem(self, topic: str) -> str | None:
        """Why an action may not write a topic; None: it may."""
        if topic in self.own:
            return f"topic is {topic!r}, a topic of the job itself"
        if topic.startswith("__"):
            return f"topic is {topic!r}: names with __ are those of Kafka's own topics"
        if self.allowed is not None and not any(fnmatchcase(topic, pattern) for pattern in self.allowed):
            return f"topic is {topic!r}, allowed (--action_topics): {', '.join(self.allowed) or 'none'}"
        return None

    def check(self, rules: Iterable[Rule]) -> None:
        """Check the topics of rules.

        Raises:
            RuleError: an action may not write its topic; the message names rule, action and topic.
        """
        for rule in rules:
            for action in rule.actions:
                if isinstance(action, KafkaAction) and action.topic is not None:
                    problem = self.problem(action.topic)
                    if problem is not None:
                        raise RuleError(f"rule {rule.name!r}: action {action.name!r}: {problem}")


def topics_of(rules: Iterable[Rule]) -> tuple[str, ...]:
    """The topics that Kafka actions name, each once."""
    topics = (action.topic for rule in rules for action in rule.actions if isinstance(action, KafkaAction))
    return tuple(dict.fromkeys(topic for topic in topics if topic is not None))


def check_destinations(rule: Rule, destinations: Collection[str]) -> None:
    """Check that the destinations of a rule's webhooks exist.

    Raises:
        RuleError: one does not exist; the message names those that do.
    """
    for action in rule.actions:
        if isinstance(action, WebhookAction) and action.destination not in destinations:
            allowed = ", ".join(destinations) or "none: there is no --destinations file"
            raise RuleError(f"rule {rule.name!r}: destination is {action.destination!r}, allowed: {allowed}")
