"""Writes groups of records in transactions: readers of committed records see all of a group, or nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Producer

from pipeline.kafka.topics import READ_S, TopicError, topic_errors
from transforms.adapters.kafka.clients import connectable

OTHER_PRODUCER: Final = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """A record to write; a ``partition`` of None leaves the choice to the key."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes


class TransactionalWriter:
    """The only writer with its id that the broker accepts at present: a new one shuts out those before it.

    Args:
        config: librdkafka's properties.
        transactional_id: the id.
        description: what error messages begin with.

    Raises:
        TopicError: Kafka does not answer or refuses.
    """

    def __init__(self, config: Mapping[str, str], transactional_id: str, description: str) -> None:
        self._description = f"{description} (transactional id {transactional_id!r})"
        own = {"transactional.id": transactional_id, "transaction.timeout.ms": "120000"}
        with topic_errors(self._description):
            self._producer = Producer(connectable({"log_level": "0", "partitioner": "murmur2_random", **config, **own}))
            self._producer.init_transactions(READ_S)

    def write(self, records: Sequence[TopicRecord]) -> str | None:
        """Write records in one transaction; returns None once it is committed, or why the broker has none of them.

        Raises:
            TopicError: another writer with the id has begun, or it is not known whether the broker has the records.
        """
        error = self._try(records)
        # After a refused record librdkafka fails the next transaction, too ("skipped sequence numbers").
        return None if error is None or self._try(records) is None else error

    def _try(self, records: Sequence[TopicRecord]) -> str | None:
        try:
            self._producer.begin_transaction()
            for record in records:
                self._produce(record)
            self._commit()
        except KafkaException as error:
            return self._give_up(error.args[0])
        return None

    def _produce(self, record: TopicRecord) -> None:
        placement = {} if record.partition is None else {"partition": record.partition}
        while True:
            try:
                self._producer.produce(record.topic, record.value, record.key, **placement)
            except BufferError:
                self._producer.poll(0.1)  # the queue is full: wait until it has room
            else:
                self._producer.poll(0)
                return

    def _commit(self) -> None:
        give_up_s = time.monotonic() + READ_S
        while True:
            try:
                self._producer.commit_transaction(READ_S)
            except KafkaException as error:
                # A commit that has timed out goes on: only the same call again tells how it ended.
                if not error.args[0].retriable() or time.monotonic() > give_up_s:
                    raise
            else:
                return

    def _give_up(self, error: KafkaError) -> str:
        """Abort the transaction; returns why."""
        if error.code() in OTHER_PRODUCER:
            raise TopicError(f"{self._description}: another one has begun, and this one was stopped") from None
        if error.fatal() or error.retriable():
            raise TopicError(f"{self._description}: {error.str()}") from None
        try:
            self._producer.abort_transaction(READ_S)
        except KafkaException as failed:
            cause: KafkaError = failed.args[0]
            raise TopicError(f"{self._description}: {error.str()}, and aborting failed: {cause.str()}") from None
        return str(error.str())
