"""What a Kafka cluster says of its topics, their partitions and its settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from pipeline.errors import PipelineError
from transforms.adapters.kafka import existing_topics
from transforms.adapters.kafka.clients import connectable
from transforms.domain.base.secret_references import SecretError

_ANSWER_S: Final = 5.0
# The topics that a job reads: Flink's source fails at one that does not exist, and makes none. Brokers would make the
# ledger with too few partitions.
_READ: Final = ("events_topic", "control_topic", "rules_topic", "deliveries_topic")


class KafkaAdminError(PipelineError, RuntimeError):
    """Kafka does not answer or refuses; with ``unusable`` librdkafka does not take the client's properties."""

    def __init__(self, message: str, unusable: bool = False) -> None:
        super().__init__(" ".join(message.split()))
        self.unusable = unusable


def topic_partitions(config: Mapping[str, str]) -> dict[str, int]:
    """The number of partitions of each topic.

    Raises:
        KafkaAdminError: Kafka does not answer, or a property is one that only Java's clients have.
    """
    with _admin_client(config) as admin:
        topics = admin.list_topics(timeout=2 * _ANSWER_S).topics
    return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}


def missing_topics(config: Mapping[str, str], topics: Iterable[str]) -> str | None:
    """Say which topics do not exist; None: all do, or brokers make them when they are written.

    Raises:
        KafkaAdminError: as ``topic_settings``.
    """
    topics = list(topics)
    if not topics:
        return None
    with _admin_client(config) as admin:
        missing = existing_topics.missing_topics(admin, frozenset(topics), _ANSWER_S)
    if not missing:
        return None
    names = ", ".join(repr(topic) for topic in topics if topic in missing)
    return f"topic {names} does not exist, allowed: topics that exist"


def lacking_topics(config: Mapping[str, str], named: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Those of the ``named`` topics that do not exist, by option, and all topics that there are.

    Where brokers make topics when they are written, only topics that are read are lacking.

    Raises:
        KafkaAdminError: as ``topic_settings``.
    """
    with _admin_client(config) as admin:
        existing = [name for name, topic in admin.list_topics(timeout=_ANSWER_S).topics.items() if topic.error is None]
        lacking = {option: topic for option, topic in named.items() if topic not in existing}
        written = frozenset(topic for option, topic in lacking.items() if option not in _READ)
        made = written - existing_topics.missing_topics(admin, written, _ANSWER_S) if written else frozenset()
    return {option: topic for option, topic in lacking.items() if option in _READ or topic not in made}, existing


def topic_settings(config: Mapping[str, str], topics: Sequence[str], setting: str) -> dict[str, str]:
    """The value of a setting, for those of ``topics`` that exist.

    Raises:
        KafkaAdminError: as ``topic_partitions``, or this client may not read the setting.
    """
    with _admin_client(config) as admin:
        existing = admin.list_topics(timeout=_ANSWER_S).topics
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics if topic in existing]
        return {resource.name: value for resource, value in _values(admin, resources, setting)}


def broker_settings(config: Mapping[str, str], setting: str) -> list[str]:
    """The value of a setting on each broker.

    Raises:
        KafkaAdminError: as ``topic_settings``.
    """
    with _admin_client(config) as admin:
        brokers = admin.list_topics(timeout=_ANSWER_S).brokers
        resources = [ConfigResource(ConfigResource.Type.BROKER, str(broker)) for broker in brokers]
        return [value for _, value in _values(admin, resources, setting)]


def _values(admin: Any, resources: Sequence[Any], setting: str) -> Iterator[tuple[Any, str]]:
    if resources:
        for resource, future in admin.describe_configs(list(resources), request_timeout=_ANSWER_S).items():
            yield resource, str(future.result()[setting].value)


@contextlib.contextmanager
def _admin_client(config: Mapping[str, str]) -> Iterator[Any]:
    errors: list[str] = []
    try:
        admin = AdminClient(
            connectable({"log_level": "0", **config, "error_cb": lambda error: errors.append(str(error.str()))})
        )
    except KafkaException as error:
        raise KafkaAdminError(error.args[0].str(), unusable=True) from None
    except SecretError as error:
        raise KafkaAdminError(str(error)) from None
    try:
        yield admin
    except KafkaException as error:
        # The first of librdkafka's own errors says why there is no connection; the exception is only a timeout.
        admin.poll(0)
        raise KafkaAdminError(errors[0] if errors else error.args[0].str()) from None
