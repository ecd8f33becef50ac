"""Which topics a launch needs, and how they should be made: the table of docs/configuration.md#topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.errors import OptionError
from pipeline.kafka.topic_creation import POLICY, RETENTION, WantedTopic
from pipeline.launch.options import Settings
from transforms.domain.rules.action_topics import topics_of
from transforms.domain.rules.model import Rule

_DAY_MS: Final = 86_400_000
LEAST_PARTITIONS: Final = 4
# How long records of a topic are kept, by the option that names it; None: for ever.
RETENTION_MS: Final[Mapping[str, int | None]] = {
    "events_topic": 7 * _DAY_MS,
    "actions_topic": 7 * _DAY_MS,
    "dead_letters_topic": 7 * _DAY_MS,
    "decisions_topic": 7 * _DAY_MS,
    "control_topic": 7 * _DAY_MS,
    "inspections_topic": _DAY_MS,  # whole users
    "audit_topic": None,
    "deliveries_topic": 3 * _DAY_MS,
}
_ONE_PARTITION: Final = ("control_topic", "inspections_topic", "audit_topic")
_SHORTEST_LEDGER_MS: Final = 3_600_000


def wanted_topics(
    settings: Settings, rules: Iterable[Rule], partitions: int | None = None, kept_ms: int | None = None
) -> list[WantedTopic]:
    """The topics that the options and the rules of a launch name, each once.

    Args:
        settings: the options.
        rules: the rules of the launch, for the topics of their Kafka actions.
        partitions: of the events topic, and of those that are as large; default: the parallelism, at least 4.
        kept_ms: how long these keep their records; default: ``RETENTION_MS``.

    Raises:
        OptionError: fewer partitions than subtasks that read them.
    """
    if partitions is not None and partitions < settings.parallelism:
        raise OptionError(
            f"--partitions is {partitions}, allowed: from --parallelism={settings.parallelism} on; further subtasks "
            "would read nothing"
        )
    many = max(settings.parallelism, LEAST_PARTITIONS) if partitions is None else partitions
    wanted = {
        topic: _wanted(settings, name, topic, many, kept_ms) for name, topic in settings.needed_topics(True).items()
    }
    of_rules = [topic for topic in settings.action_topics if not set(topic) & set("*?[")]
    for topic in (*of_rules, *topics_of(rules)):
        wanted.setdefault(topic, _deleted(topic, "Kafka actions", many, kept_ms or RETENTION_MS["actions_topic"]))
    return list(wanted.values())


def _wanted(settings: Settings, name: str, topic: str, many: int, kept_ms: int | None) -> WantedTopic:
    option = f"--{name}"
    if name == "rules_topic":
        return WantedTopic(topic, option, 1, {POLICY: "compact"}, exactly=True)
    if name in _ONE_PARTITION:
        return _deleted(topic, option, 1, RETENTION_MS[name])
    if name == "deliveries_topic":
        least_ms = least_ledger_retention_ms(settings)
        ledger_ms = max(RETENTION_MS[name] or 0, least_ms)
        shards = settings.user_shards
        return WantedTopic(
            topic,
            option,
            shards,
            {POLICY: "delete", RETENTION: str(ledger_ms)},
            needed=shards,
            least_retention_ms=least_ms,
        )
    return _deleted(topic, option, many, kept_ms or RETENTION_MS[name])


def least_ledger_retention_ms(settings: Settings) -> int:
    """The shortest retention of the ledger of deliveries that a launch takes."""
    return max(_SHORTEST_LEDGER_MS, 10 * settings.checkpointing_interval_ms)


def _deleted(topic: str, option: str, partitions: int, kept_ms: int | None) -> WantedTopic:
    return WantedTopic(
        topic, option, partitions, {POLICY: "delete", RETENTION: "-1" if kept_ms is None else str(kept_ms)}
    )
