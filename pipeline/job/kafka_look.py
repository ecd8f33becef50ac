"""What Kafka says of a job's topics."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.console import did_you_mean
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.cluster_settings import KafkaAdminError, lacking_topics
from pipeline.launch.options import Settings

_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class KafkaLook:
    """What Kafka says of the topics that a job's options name.

    Attributes:
        trouble: why Kafka cannot be asked from here; None if it was.
        missing: the topics that do not exist, by the option that names them.
        hints: what may have been meant, by option.
    """

    trouble: str | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)


class KafkaLooks:
    """Asks Kafka about the topics of a job at most every ``_EVERY_S`` seconds: a broker that is away takes its time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._at_s = -math.inf
        self._newest: KafkaLook | None = None

    def look(self, has_kafka_actions: bool) -> KafkaLook | None:
        """The newest look; None without ``--bootstrap_servers``."""
        if time.monotonic() - self._at_s > _EVERY_S:
            self._newest = look_at_kafka(self._settings, has_kafka_actions)
            self._at_s = time.monotonic()
        return self._newest


def look_at_kafka(settings: Settings, has_kafka_actions: bool) -> KafkaLook | None:
    """Ask Kafka which of the job's topics do not exist; None without ``--bootstrap_servers``.

    Args:
        settings: the options of the launch.
        has_kafka_actions: whether the job writes the topic of Kafka actions.
    """
    if settings.bootstrap_servers is None:
        return None
    named = settings.needed_topics(has_kafka_actions)
    try:
        missing, existing = lacking_topics(for_librdkafka(settings.client_config()), named)
    except KafkaAdminError as error:
        return KafkaLook(trouble=str(error))
    hints = {option: hint for option, topic in missing.items() if (hint := did_you_mean(topic, existing))}
    return KafkaLook(missing=missing, hints=hints)
