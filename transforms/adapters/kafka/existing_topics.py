"""Which topics of Kafka actions do not exist. Kafka's producer would wait for one, and then the job would restart."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from transforms.adapters.kafka.clients import connectable
from transforms.domain.base.secret_references import SecretError

_ANSWER_S: Final = 10.0
_LOG: Final = logging.getLogger("event_trigger.kafka")


class ExistingTopics:
    """Asks Kafka in a thread of its own which of the expected topics are missing. Thread-safe, and no call waits.

    A topic is missing only if Kafka said so after it was first expected. Until then, while brokers do not answer or
    do not say whether they create topics by themselves, and where they do create them, no topic is missing.

    Args:
        config: properties of a Kafka client, as librdkafka takes them.
        every_s: the pause between two questions.
        soon_s: the shortest pause; so soon Kafka is asked after a new or a missing topic was named.
    """

    def __init__(self, config: Mapping[str, str], every_s: float = 10.0, soon_s: float = 1.0) -> None:
        self._config = dict(config)
        self._every_s = every_s
        self._soon_s = soon_s
        self._expected: frozenset[str] = frozenset()
        self._missing: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._asked_for = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_warned = False

    def expect(self, topics: Iterable[str]) -> None:
        """Watch these topics from now on."""
        with self._lock:
            expected = self._expected.union(topics)
            if expected == self._expected:
                return
            self._expected = expected
            self._asked_for.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="existing-topics", daemon=True)
                self._thread.start()

    def is_missing(self, topic: str) -> bool:
        """Whether Kafka has said that a topic does not exist; Kafka is asked again soon after it was."""
        if topic in self._missing:
            self._asked_for.set()
            return True
        if topic not in self._expected:
            self.expect([topic])
        return False

    def _watch(self) -> None:
        admin = None
        while True:
            self._asked_for.clear()
            expected, missing = self._expected, frozenset[str]()
            # An error is no answer: actions go out as they would without this check.
            with contextlib.suppress(KafkaException), self._warning_once():
                admin = admin or AdminClient(connectable({"log_level": "0", **self._config}))
                missing = missing_topics(admin, expected)
            for topic in sorted(missing - self._missing):
                _LOG.warning("topic %r of Kafka actions does not exist: its actions become dead letters", topic)
            self._missing = missing
            time.sleep(self._soon_s)
            self._asked_for.wait(self._every_s - self._soon_s)

    @contextlib.contextmanager
    def _warning_once(self) -> Iterator[None]:
        """Log the first time that a secret cannot be read here; it is read again with the next question."""
        try:
            yield
        except SecretError as error:
            if not self._has_warned:
                self._has_warned = True
                _LOG.warning("topics of Kafka actions are not watched: %s", error)


def missing_topics(admin: Any, expected: frozenset[str], settings_s: float = _ANSWER_S) -> frozenset[str]:
    """The topics that do not exist; none where brokers create topics when they are written.

    Args:
        admin: confluent-kafka's client of Kafka's administration.
        expected: the topics.
        settings_s: how long brokers may take to tell their settings.

    Raises:
        KafkaException: Kafka does not answer or refuses.
    """
    metadata = admin.list_topics(timeout=_ANSWER_S)
    missing = expected - {name for name, topic in metadata.topics.items() if topic.error is None}
    if not missing:
        return missing
    brokers = [ConfigResource(ConfigResource.Type.BROKER, str(broker)) for broker in metadata.brokers]
    answers = admin.describe_configs(brokers, request_timeout=settings_s).values()
    creates = any(answer.result()["auto.create.topics.enable"].value == "true" for answer in answers)
    return frozenset() if creates else missing
