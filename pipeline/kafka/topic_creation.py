"""Creates topics as they are wanted, and says how topics that exist differ from that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from pipeline.kafka.topics import ANSWER_S, READ_S, topic_errors
from transforms.adapters.kafka.clients import connectable

RETENTION: Final = "retention.ms"
POLICY: Final = "cleanup.policy"
_IN_SYNC: Final = "min.insync.replicas"
_MOST_REPLICAS: Final = 3


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as a job's options want it.

    Attributes:
        option: the option that names it, or what else does.
        partitions: how many. With ``exactly`` no other number will do, otherwise more are as good.
        needed: how many partitions it must have for the job to work.
        config: its settings; a longer retention is as good.
        least_retention_ms: with a shorter retention the launch refuses it.
    """

    name: str
    option: str
    partitions: int
    config: Mapping[str, str]
    exactly: bool = False
    needed: int = 1
    least_retention_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a topic: ``state`` is a constant of this module, ``notes`` say the rest."""

    topic: WantedTopic
    state: str
    notes: tuple[str, ...] = ()

    @property
    def is_wrong(self) -> bool:
        """Whether a job with these options would not work, or lose data."""
        return self.state in (REFUSED, WRONG)


CREATED, WOULD_CREATE, EXISTS, DIFFERS, WRONG, REFUSED = (
    "created",
    "would create",
    "exists",
    "differs",
    "WRONG",
    "REFUSED",
)


@dataclass(frozen=True, slots=True)
class _Found:
    """A topic that exists; without the right to read its settings ``config`` is None."""

    partitions: int
    replicas: int
    config: Mapping[str, str] | None


class TopicCreator:
    """Creates topics at the brokers that ``config`` names. ``replicas`` None: three, or one on each of fewer brokers.

    Raises:
        TopicError: from any method: Kafka does not answer.
    """

    def __init__(self, config: Mapping[str, str], replicas: int | None = None) -> None:
        self._config = {"log_level": "0", **config}
        with topic_errors("topics", config):
            self._admin: Any = AdminClient(connectable(self._config))
            self.brokers = len(self._admin.list_topics(timeout=ANSWER_S).brokers)
        self.replicas = min(_MOST_REPLICAS, self.brokers) if replicas is None else replicas

    @property
    def in_sync(self) -> int:
        """How many replicas must have a record: one may be away without a record being lost or refused."""
        return max(1, self.replicas - 1)

    def settings(self, topic: WantedTopic) -> dict[str, str]:
        """The settings that a topic is created with."""
        return {**topic.config, _IN_SYNC: str(self.in_sync)}

    def create(self, topics: Sequence[WantedTopic], dry_run: bool = False) -> Iterator[Outcome]:
        """Create those that do not exist; with ``dry_run`` brokers only say whether they would."""
        with topic_errors("topics", self._config):
            existing = self._existing([topic.name for topic in topics])
            missing = [topic for topic in topics if topic.name not in existing]
            futures = self._requested(missing, dry_run)
        for topic in topics:
            if topic.name not in futures:
                yield self._compared(topic, existing[topic.name])
                continue
            try:
                futures[topic.name].result(READ_S)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:  # somebody was faster
                    with topic_errors("topics", self._config):
                        yield self._compared(topic, self._existing([topic.name])[topic.name])
                else:
                    yield Outcome(topic, REFUSED, (error.args[0].str(),))
            else:
                yield Outcome(topic, WOULD_CREATE if dry_run else CREATED)

    def _requested(self, topics: Sequence[WantedTopic], dry_run: bool) -> dict[str, Any]:
        if not topics:
            return {}
        new = [NewTopic(topic.name, topic.partitions, self.replicas, config=self.settings(topic)) for topic in topics]
        return dict(self._admin.create_topics(new, operation_timeout=READ_S, validate_only=dry_run))

    def _existing(self, names: Sequence[str]) -> dict[str, _Found]:
        topics = self._admin.list_topics(timeout=ANSWER_S).topics
        found = {}
        for name in names:
            topic = topics.get(name)
            if topic is not None and topic.error is None:
                replicas = min((len(partition.replicas) for partition in topic.partitions.values()), default=0)
                found[name] = _Found(len(topic.partitions), replicas, self._settings_of(name))
        return found

    def _settings_of(self, name: str) -> dict[str, str] | None:
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        try:
            values = self._admin.describe_configs([resource], request_timeout=ANSWER_S)[resource].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return None
            raise
        return {key: str(entry.value) for key, entry in values.items()}

    def _compared(self, topic: WantedTopic, found: _Found) -> Outcome:
        wrong, other = [], []
        if found.partitions < topic.needed or (topic.exactly and found.partitions != topic.partitions):
            allowed = topic.partitions if topic.exactly else f"at least {topic.needed}"
            wrong.append(f"{found.partitions} partitions, allowed: {allowed}")
        elif found.partitions < topic.partitions:
            other.append(f"{found.partitions} partitions instead of {topic.partitions}")
        if found.replicas < self.replicas:
            other.append(f"{found.replicas} replicas instead of {self.replicas}")
        if found.config is None:
            other.append("its settings may not be read (DescribeConfigs)")
        else:
            policy = found.config[POLICY]
            if policy != topic.config[POLICY]:
                wrong.append(f"{POLICY} is {policy}, allowed: {topic.config[POLICY]}")
            kept, wanted = _retention(found.config), _retention(topic.config)
            if "delete" in policy and kept < topic.least_retention_ms:
                wrong.append(f"{RETENTION} is {found.config[RETENTION]}, allowed: from {topic.least_retention_ms} on")
            elif "delete" in policy and kept < wanted:
                other.append(f"{RETENTION} is {found.config[RETENTION]} instead of {topic.config[RETENTION]}")
            if int(found.config[_IN_SYNC]) < self.in_sync:
                other.append(f"{_IN_SYNC} is {found.config[_IN_SYNC]} instead of {self.in_sync}")
        return Outcome(topic, WRONG if wrong else DIFFERS if other else EXISTS, (*wrong, *other))


def _retention(config: Mapping[str, str]) -> float:
    milliseconds = int(config.get(RETENTION, "0"))
    return float("inf") if milliseconds < 0 else milliseconds
