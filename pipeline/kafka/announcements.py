"""What a job announces on its audit topic when it is launched, so that publishers of rules know what it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from pipeline.kafka.topics import TopicError, TopicWriter, existing_topic, topic_errors

# Options that change what rules do; the same as those of ``rules test``.
MEANING: Final = (
    "history_fields",
    "history_size",
    "state_ttl_seconds",
    "allowed_lateness_seconds",
    "enrichment_deadline_seconds",
    "profile_max_age_seconds",
    "max_event_bytes",
    "min_event_timestamp_ms",
    "max_event_lead_seconds",
)


@dataclass(frozen=True, slots=True)
class Announcement:
    """An audit record: a job was launched.

    Attributes:
        job: its name.
        rules_topic: where it takes rules from.
        destinations: the names of its destinations.
        options: its values of ``MEANING``.
        at_ms: when it was launched.
    """

    job: str
    rules_topic: str
    destinations: tuple[str, ...]
    options: dict[str, Any]
    at_ms: int

    def to_json(self) -> bytes:
        """Encode as JSON."""
        return orjson.dumps(
            {
                "audit": "job",
                "job": self.job,
                "rules_topic": self.rules_topic,
                "destinations": self.destinations,
                "options": self.options,
                "time": self.at_ms,
            }
        )

    @classmethod
    def of_json(cls, value: bytes) -> Announcement | None:
        """Decode an audit record, None if it is of another kind."""
        try:
            record = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(record, dict) or record.get("audit") != "job":
            return None
        values: list[Any] = [record.get(name) for name in ("job", "rules_topic", "destinations", "options", "time")]
        job, topic, names, options, at_ms = values
        is_one = isinstance(job, str) and isinstance(topic, str) and isinstance(options, dict) and type(at_ms) is int
        if not is_one or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        return cls(job, topic, tuple(names), options, at_ms)


def announce(config: Mapping[str, str], topic: str, announcement: Announcement) -> None:
    """Write an announcement to the audit topic.

    Raises:
        TopicError: Kafka does not take it.
    """
    problems: list[str] = []
    with topic_errors(f"audit topic {topic!r}", config):
        writer = TopicWriter(config)
        writer.write(
            topic,
            f"job-{announcement.job}".encode(),
            announcement.to_json(),
            on_result=lambda problem: problems.append(problem) if problem is not None else None,
        )
        left = writer.flush()
    if problems or left:
        raise TopicError(f"audit topic {topic!r}: {problems[0] if problems else 'Kafka does not answer'}")


def newest_announcement(config: Mapping[str, str], topic: str, rules_topic: str) -> Announcement | None:
    """The newest announcement of a job that takes rules from a topic, None without one.

    Raises:
        TopicError: Kafka does not answer, or the audit topic is missing.
    """
    with existing_topic(config, topic, f"audit topic {topic!r}") as reader:
        values = (message.value() for message in reader.to_end())
        announcements = [Announcement.of_json(value) for value in values if value is not None]
    of_topic = [found for found in announcements if found is not None and found.rules_topic == rules_topic]
    return max(of_topic, key=lambda found: found.at_ms, default=None)
