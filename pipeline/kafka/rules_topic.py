"""The topic of published rule sets and what shards say of them, on confluent-kafka; no Beam.

A set's number is used once, whoever publishes when: publishers share a transactional id, so that of two at work the
one that began first is refused by the broker, and what was published is read only after the others are shut out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from pipeline.kafka.topics import ANSWER_S, READ_S, TopicError, reading, saying
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import (
    Acknowledgement,
    RuleSet,
    decode_rule_set,
    encode_rule_set,
    number_of_key,
)

KEPT_SETS: Final = 20

_OVERTAKEN: Final = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


class RulesTopicError(TopicError):
    """The topic of rule sets, or the audit topic, is not what it has to be."""


@dataclass(frozen=True, slots=True)
class PublishedSets:
    """What the topic holds: sets by ascending number, what is none, and the highest number ever seen."""

    sets: tuple[RuleSet, ...] = ()
    unreadable: tuple[str, ...] = ()
    highest: int = 0

    @property
    def live(self) -> RuleSet | None:
        """The set with the highest number."""
        return self.sets[-1] if self.sets else None

    def numbered(self, number: int) -> RuleSet | None:
        """The set with this number."""
        return next((one for one in self.sets if one.number == number), None)


class RulesTopic:
    """A topic of rule sets. ``config`` are librdkafka's properties, ``bootstrap.servers`` among them."""

    def __init__(self, topic: str, config: Mapping[str, str]) -> None:
        self.topic = topic
        self._config = {"log_level": "0", **config}

    def read(self) -> PublishedSets:
        """All sets that are there; none if the topic is missing.

        Raises:
            TopicError: Kafka does not answer, or the topic has more than one partition.
        """
        with _saying(f"rules topic {self.topic!r}"), reading(self._config, self.topic) as reader:
            if not reader.partitions:
                return PublishedSets()
            self._check_partitions(len(reader.partitions))
            return _published(reader.to_end())

    @contextlib.contextmanager
    def publishing(self) -> Iterator[Publisher]:
        """Shut out other publishers; a topic that is missing is created.

        Raises:
            TopicError: as ``read``; or the topic's records are not kept by key.
        """
        with _saying(f"rules topic {self.topic!r}"):
            self.prepare()
            producer = Producer(
                {
                    **self._config,
                    "transactional.id": f"event-trigger-rules-{self.topic}",
                    "transaction.timeout.ms": "30000",
                }
            )
            producer.init_transactions(READ_S)
        yield Publisher(self, producer, self.read())

    def prepare(self) -> None:
        """Create the topic if it is missing.

        Raises:
            TopicError: Kafka does not let us, or the topic would not keep the sets or their order.
        """
        with _saying(f"rules topic {self.topic!r}"):
            admin = AdminClient(self._config)
            with reading(self._config, self.topic) as reader:
                partitions = len(reader.partitions)
            if partitions:
                self._check_partitions(partitions)
                self._check_compacted(admin)
            else:
                self._create(admin)

    def _create(self, admin: AdminClient) -> None:
        # The number of copies is the broker's default.
        wanted = NewTopic(self.topic, 1, -1, config={"cleanup.policy": "compact"})
        try:
            admin.create_topics([wanted], operation_timeout=ANSWER_S)[self.topic].result(READ_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def _check_partitions(self, count: int) -> None:
        if count != 1:
            raise RulesTopicError(
                f"rules topic {self.topic!r} has {count} partitions, allowed is 1: sets apply in the order of one"
            )

    def _check_compacted(self, admin: AdminClient) -> None:
        resource = ConfigResource(ResourceType.TOPIC, self.topic)
        try:
            policy = admin.describe_configs([resource])[resource].result(ANSWER_S)["cleanup.policy"].value
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return  # who may write a topic may not always look at its configuration
            raise
        if policy != "compact":
            raise RulesTopicError(
                f"rules topic {self.topic!r} has cleanup.policy {policy!r}, allowed is 'compact': the live set would "
                "be deleted one day, and its number used again"
            )


class Publisher:
    """The one publisher; ``published`` is what is on the topic."""

    def __init__(self, topic: RulesTopic, producer: Producer, published: PublishedSets) -> None:
        self._topic = topic
        self._producer = producer
        self.published = published

    def publish(self, rules: Sequence[Rule], by: str, note: str, now_ms: int) -> RuleSet:
        """Publish rules under the next number; the set, when readers see it. Old sets are removed.

        Raises:
            RuleError: the set is too large.
            TopicError: another publisher began meanwhile, or Kafka refused.
        """
        rule_set = RuleSet(self.published.highest + 1, tuple(rules), now_ms, by, note)
        value = encode_rule_set(rule_set)
        topic, failed = self._topic.topic, []
        old = [one.key for one in self.published.sets[: 1 - KEPT_SETS]]

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        with _saying(f"rules topic {topic!r}, publishing set {rule_set.number}"):
            self._producer.begin_transaction()
            try:
                for key, one in [(rule_set.key, value), *((key, None) for key in old)]:
                    self._producer.produce(topic, one, key, on_delivery=delivered)
                self._producer.flush(READ_S)
                if failed:
                    raise KafkaException(failed[0])
                self._producer.commit_transaction(READ_S)
            except KafkaException:
                with contextlib.suppress(KafkaException):  # or readers would wait for it to time out
                    self._producer.abort_transaction(ANSWER_S)
                raise
        self._wait_until_visible(rule_set)
        return rule_set

    def _wait_until_visible(self, rule_set: RuleSet) -> None:
        """The broker says that a transaction is committed shortly before readers see it."""
        give_up = time.monotonic() + READ_S
        while self._topic.read().highest < rule_set.number:
            if time.monotonic() > give_up:
                raise RulesTopicError(
                    f"rules topic {self._topic.topic!r}: set {rule_set.number} is published but was not to be read "
                    f"after {READ_S:.0f} s"
                )
            time.sleep(0.05)


class Acknowledgements:
    """What shards say of rule sets on the audit topic, from ``since_ms`` on; a context manager.

    Raises:
        TopicError: Kafka does not answer, or the topic is missing.
    """

    def __init__(self, topic: str, config: Mapping[str, str], since_ms: int) -> None:
        self._topic = topic
        self._stack = contextlib.ExitStack()
        self.found: list[Acknowledgement] = []
        with _saying(f"audit topic {topic!r}"):
            self._reader = self._stack.enter_context(reading(config, topic, since_ms))
            if not self._reader.partitions:
                self._stack.close()
                raise RulesTopicError(f"audit topic {topic!r} does not exist")
            self._take(self._reader.to_end())

    def __enter__(self) -> Acknowledgements:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read_on(self, timeout_s: float) -> None:
        """Take in what comes within a time."""
        with _saying(f"audit topic {self._topic!r}"):
            self._take(self._reader.poll(timeout_s))

    def _take(self, messages: Sequence[Message]) -> None:
        read = (Acknowledgement.of_json(message.value()) for message in messages if message.value() is not None)
        self.found += [one for one in read if one is not None]


def _published(messages: Sequence[Message]) -> PublishedSets:
    latest: dict[bytes | None, bytes] = {}
    highest = 0
    for message in messages:
        key, value = message.key(), message.value()
        highest = max(highest, number_of_key(key) or 0)
        latest.pop(key, None)
        if value is not None:
            latest[key] = value
    sets: dict[int, RuleSet] = {}
    unreadable = []
    for key, value in latest.items():
        try:
            found = decode_rule_set(value)
        except RuleError as error:
            unreadable.append(f"record {(key or b'').decode(errors='replace')!r}: {error}")
        else:
            sets.setdefault(found.number, found)
    return PublishedSets(tuple(sets[number] for number in sorted(sets)), tuple(unreadable), max(highest, *sets, 0))


@contextlib.contextmanager
def _saying(what: str) -> Iterator[None]:
    """Kafka's errors as ours, with what was being done."""
    with saying(what):
        try:
            yield
        except KafkaException as error:
            if error.args[0].code() in _OVERTAKEN:
                raise RulesTopicError(
                    f"{what}: another publisher began meanwhile, so that this one published nothing; see "
                    "`rules status`, then publish again if need be"
                ) from None
            raise
