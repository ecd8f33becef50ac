"""What Kafka says of a job's topics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.console import did_you_mean
from pipeline.kafka.cluster_settings import KafkaAdminError, lacking_topics

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
    """Asks Kafka about the topics of a job at most every ``_EVERY_S`` seconds: a broker that is away takes its time.

    Args:
        config: properties of a Kafka client, for librdkafka.
        needed: the topics that a job needs, by option, given whether it writes Kafka actions.
    """

    def __init__(self, config: Mapping[str, str], needed: Callable[[bool], Mapping[str, str]]) -> None:
        self._config = config
        self._needed = needed
        self._at_s = -math.inf
        self._newest = KafkaLook()

    def look(self, writes_actions: bool) -> KafkaLook:
        """The newest look."""
        if time.monotonic() - self._at_s > _EVERY_S:
            self._newest = look_at_kafka(self._config, self._needed(writes_actions))
            self._at_s = time.monotonic()
        return self._newest


def look_at_kafka(config: Mapping[str, str], named: Mapping[str, str]) -> KafkaLook:
    """Ask Kafka which of the topics, by the option that names them, do not exist."""
    try:
        missing, existing = lacking_topics(config, named)
    except KafkaAdminError as error:
        return KafkaLook(trouble=str(error))
    hints = {option: hint for option, topic in missing.items() if (hint := did_you_mean(topic, existing))}
    return KafkaLook(missing=missing, hints=hints)
