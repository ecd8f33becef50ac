"""The topic of published rule sets, and the shards' acknowledgements of them; on confluent-kafka, without Beam.

A set's number is used only once: all publishers of a topic share a transactional id. If two publish at the same time,
the broker refuses the one that began first, and a publisher reads the topic only after the broker has shut out others.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from pipeline.kafka.topics import ANSWER_S, READ_S, TopicError, TopicReader, existing_topic, open_reader, topic_errors
from transforms.adapters.kafka.clients import connectable
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import (
    Acknowledgement,
    RuleSet,
    check_number,
    decode_rule_set,
    encode_rule_set,
    number_of_key,
)

KEPT_SETS: Final = 20

_OTHER_PUBLISHER: Final = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


@dataclass(frozen=True, slots=True)
class PublishedSets:
    """The content of the topic: sets by ascending number, an error for each other record, the highest number used."""

    sets: tuple[RuleSet, ...] = ()
    unreadable: tuple[str, ...] = ()
    highest: int = 0

    @property
    def live(self) -> RuleSet | None:
        """The set with the highest number."""
        return self.sets[-1] if self.sets else None


class RulesTopic:
    """A topic of rule sets. ``config`` are librdkafka's properties, ``bootstrap.servers`` among them."""

    def __init__(self, topic: str, config: Mapping[str, str]) -> None:
        self.topic = topic
        self._config = {"log_level": "0", **config}

    def read(self) -> PublishedSets:
        """Read all sets; a missing topic has none.

        Raises:
            TopicError: Kafka does not answer, or the topic has more than one partition.
        """
        with (
            _rules_topic_errors(f"rules topic {self.topic!r}", self._config),
            open_reader(self._config, self.topic) as reader,
        ):
            if not reader.partitions:
                return PublishedSets()
            self._check_partitions(len(reader.partitions))
            return _published_sets(reader.to_end())

    @contextlib.contextmanager
    def publishing(self) -> Iterator[Publisher]:
        """Shut out other publishers while the context is open; a missing topic is created.

        Raises:
            TopicError: as ``read``; or the topic's records are not kept by key.
        """
        with _rules_topic_errors(f"rules topic {self.topic!r}", self._config):
            self.prepare()
            own = {"transactional.id": f"event-trigger-rules-{self.topic}", "transaction.timeout.ms": "30000"}
            producer = Producer(connectable({**self._config, **own}))
            producer.init_transactions(READ_S)
        yield Publisher(self, producer, self.read())

    def prepare(self) -> None:
        """Create the topic if it is missing, otherwise check its configuration.

        Raises:
            TopicError: Kafka refuses, or the topic would not keep the sets or their order.
        """
        with _rules_topic_errors(f"rules topic {self.topic!r}", self._config):
            admin = AdminClient(connectable(self._config))
            with open_reader(self._config, self.topic) as reader:
                partitions = len(reader.partitions)
            if partitions:
                self._check_partitions(partitions)
                self._check_compacted(admin)
            else:
                self._create(admin)

    def _create(self, admin: AdminClient) -> None:
        # -1 is the broker's default number of replicas.
        topic = NewTopic(self.topic, 1, -1, config={"cleanup.policy": "compact"})
        try:
            admin.create_topics([topic], operation_timeout=ANSWER_S)[self.topic].result(READ_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def _check_partitions(self, count: int) -> None:
        if count != 1:
            raise TopicError(
                f"rules topic {self.topic!r} has {count} partitions, allowed is 1: sets apply in the order of one"
            )

    def _check_compacted(self, admin: AdminClient) -> None:
        resource = ConfigResource(ResourceType.TOPIC, self.topic)
        try:
            policy = admin.describe_configs([resource])[resource].result(ANSWER_S)["cleanup.policy"].value
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return  # not every client that may write the topic may also read its configuration
            raise
        if policy != "compact":
            raise TopicError(
                f"rules topic {self.topic!r} has cleanup.policy {policy!r}, allowed is 'compact': the live set would "
                "be deleted one day, and its number used again"
            )


class Publisher:
    """The only publisher that the broker accepts at present; ``published`` is the topic's content."""

    def __init__(self, topic: RulesTopic, producer: Producer, published: PublishedSets) -> None:
        self._topic = topic
        self._producer = producer
        self.published = published

    def publish(self, rules: Sequence[Rule], by: str, note: str, now_ms: int) -> RuleSet:
        """Publish rules under the next number, remove old sets, and wait until readers see the new set.

        Args:
            rules: the rules of the set.
            by: who publishes, as ``rules status`` shows it.
            note: why, as ``rules status`` shows it.
            now_ms: the time of publishing, ms since the epoch.

        Raises:
            RuleError: the set is too large for a record.
            TopicError: another publisher began meanwhile, or Kafka refused.
        """
        rule_set = RuleSet(self.published.highest + 1, tuple(rules), now_ms, by, note)
        value = encode_rule_set(rule_set)
        topic, errors = self._topic.topic, []
        old_keys = [old.key for old in self.published.sets[: 1 - KEPT_SETS]]

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                errors.append(error)

        with _rules_topic_errors(f"rules topic {topic!r}, publishing set {rule_set.number}"):
            self._producer.begin_transaction()
            try:
                self._producer.produce(topic, value, rule_set.key, on_delivery=delivered)
                for key in old_keys:
                    self._producer.produce(topic, None, key, on_delivery=delivered)
                self._producer.flush(READ_S)
                if errors:
                    raise KafkaException(errors[0])
                self._producer.commit_transaction(READ_S)
            except KafkaException:
                with contextlib.suppress(KafkaException):  # otherwise readers wait until it times out
                    self._producer.abort_transaction(ANSWER_S)
                raise
        self._wait_until_visible(rule_set)
        return rule_set

    def _wait_until_visible(self, rule_set: RuleSet) -> None:
        """The broker reports a transaction as committed shortly before readers see it."""
        give_up_s = time.monotonic() + READ_S
        while self._topic.read().highest < rule_set.number:
            if time.monotonic() > give_up_s:
                raise TopicError(
                    f"rules topic {self._topic.topic!r}: set {rule_set.number} is published but was not to be read "
                    f"after {READ_S:.0f} s"
                )
            time.sleep(0.05)


@contextlib.contextmanager
def acknowledgements_since(topic: str, config: Mapping[str, str], since_ms: int) -> Iterator[Acknowledgements]:
    """The shards' acknowledgements of rule sets on the audit topic since a time.

    Raises:
        TopicError: Kafka does not answer, or the topic is missing.
    """
    with existing_topic(config, topic, f"audit topic {topic!r}", since_ms) as reader:
        yield Acknowledgements(reader)


class Acknowledgements:
    """Acknowledgements of rule sets; ``received`` has those that were read so far."""

    def __init__(self, reader: TopicReader) -> None:
        self._reader = reader
        self.received: list[Acknowledgement] = []
        self._add(reader.to_end())

    def poll(self, timeout_s: float) -> None:
        """Receive the acknowledgements that arrive within a time."""
        self._add(self._reader.poll(timeout_s))

    def _add(self, messages: Sequence[Message]) -> None:
        values = (message.value() for message in messages)
        acknowledgements = (Acknowledgement.of_json(value) for value in values if value is not None)
        self.received += [acknowledgement for acknowledgement in acknowledgements if acknowledgement is not None]


def _published_sets(messages: Sequence[Message]) -> PublishedSets:
    latest: dict[bytes | None, bytes] = {}
    numbers = set[int]()
    for message in messages:
        key, value = message.key(), message.value()
        numbers.add(number_of_key(key) or 0)
        latest.pop(key, None)
        if value is not None:
            latest[key] = value
    sets: dict[int, RuleSet] = {}
    unreadable = []
    for key, value in latest.items():
        try:
            rule_set = decode_rule_set(value)
        except RuleError as error:
            unreadable.append(f"record {(key or b'').decode(errors='replace')!r}: {error}")
        else:
            sets.setdefault(rule_set.number, rule_set)
    highest = 0
    for number in sorted(numbers | sets.keys()):
        try:
            check_number(number, highest)
        except RuleError as error:
            unreadable.append(f"set {number}: {error}")
            sets.pop(number, None)
        else:
            highest = number
    return PublishedSets(tuple(sets[number] for number in sorted(sets)), tuple(unreadable), highest)


@contextlib.contextmanager
def _rules_topic_errors(description: str, config: Mapping[str, str] | None = None) -> Iterator[None]:
    """As ``topic_errors``, with the fencing of a publisher by a later one explained."""
    with topic_errors(description, config):
        try:
            yield
        except KafkaException as error:
            if error.args[0].code() in _OTHER_PUBLISHER:
                raise TopicError(
                    f"{description}: another publisher began meanwhile, so that this one published nothing; see "
                    "`rules status`, then publish again if need be"
                ) from None
            raise
