"""The resources of a worker process: all of its DoFn instances and shards share them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, TypeVar, cast

from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.kafka.existing_topics import ExistingTopics
from transforms.adapters.ledger.delivery_ledger import DeliveryLedger
from transforms.adapters.ledger.kafka_log import KafkaLog
from transforms.adapters.letter_keys import letter_signer
from transforms.adapters.telemetry.metrics import WorkerMetrics
from transforms.adapters.user_api.client import HttpUserApi
from transforms.adapters.user_api.fetch_pool import FetchPool
from transforms.adapters.user_hash_key import user_hash
from transforms.adapters.webhook_sender.send_pool import SendPool
from transforms.domain.base.user_hash import UserHash
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.rules.quarantine import Quarantine
from transforms.domain.webhooks.ledger import job_hash
from transforms.runtime.event_log import EventLog
from transforms.runtime.rule_error_sampler import RuleErrorSampler
from transforms.runtime.settings import HandleSettings, WebhookSettings

_T = TypeVar("_T")


class ProcessResources:
    """Makes each pool on first use and keeps it until the process ends. Thread-safe.

    Beam creates and drops DoFn instances at any time, so no resource may belong to one of them: a user has at most one
    fetch in flight in a process, and rates, breakers and limits hold for the process.

    Attributes:
        quarantine: the rules that are set aside because they keep hitting their limits.
        metrics: those that belong to no shard, of calls to the user API for example.
        event_log: the log; its limits count the lines of all shards.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """The resource of a key; the first caller makes it."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return cast(_T, self._made[key])

    def reset(self) -> None:
        """Forget all resources, as if the process started anew; their users keep them. For tests, too."""
        with self._lock:
            self.quarantine, self.metrics, self.event_log = Quarantine(), WorkerMetrics(), EventLog()
            self._made: dict[Hashable, Any] = {}

    def _io_thread(self) -> IoThread:
        """The thread of all calls; the caller holds the lock."""
        if IoThread not in self._made:
            self._made[IoThread] = IoThread()
        return cast(IoThread, self._made[IoThread])

    def letter_signer(self, key: str | None) -> LetterSigner:
        """The signer with the keys of a reference.

        Raises:
            SecretError: the keys cannot be read.
        """
        return self.once((LetterSigner, key), lambda: letter_signer(key))

    def user_hash(self, key: str | None) -> UserHash:
        """The hash of users under the key of a reference.

        Raises:
            SecretError: the key cannot be read.
        """
        return self.once((UserHash, key), lambda: user_hash(key))

    def existing_topics(self, config: Mapping[str, str]) -> ExistingTopics:
        """The watch of the topics of the cluster that these properties name."""
        return self.once((ExistingTopics, *sorted(config.items())), lambda: ExistingTopics(config))

    def delivery_ledger(self, settings: HandleSettings) -> DeliveryLedger | None:
        """The ledger of the settings' topic; None: the job keeps none.

        Raises:
            SecretError: a secret of the Kafka client cannot be read.
        """
        topic, config = settings.deliveries_topic, settings.kafka_config
        if topic is None or config is None:
            return None
        job = job_hash(settings.job_name, settings.user_shards)
        return self.once(
            (DeliveryLedger, topic, job, *sorted(config.items())),
            lambda: DeliveryLedger(KafkaLog(config, topic), topic, job, self.metrics, self._io_thread().later),
        )

    def rule_error_sampler(self, per_minute: int) -> RuleErrorSampler:
        """The sampler of rule errors with this limit."""
        return self.once((RuleErrorSampler, per_minute), lambda: RuleErrorSampler(per_minute))

    def history_fields(self, names: tuple[str, ...]) -> list[str]:
        """The fields that are kept of the user API's past events: these, and what is appended as rule sets come."""
        return self.once(("history fields", names), lambda: list(names))

    def fetch_pool(self, settings: HandleSettings) -> FetchPool:
        """The pool of the settings' user API.

        Raises:
            TokenError: the API's token cannot be read.
            CaFileError: its CA file cannot be used.
        """
        api, deadline_s = settings.user_api, settings.shard.enrichment_deadline_ms / 1000
        names = settings.shard.history_fields
        fields = self.history_fields(names)

        def make() -> FetchPool:
            if api.base_url is None:
                return FetchPool(None)
            return FetchPool(HttpUserApi(api, deadline_s, fields, io=self._io_thread(), metrics=self.metrics))

        return self.once((FetchPool, api, deadline_s, names), make)

    def send_pool(self, settings: WebhookSettings) -> SendPool:
        """The pool of these destinations, with their rates, breakers and connections.

        Raises:
            CaFileError: the CA file cannot be used.
        """
        documents = tuple(destination.model_dump_json() for destination in settings.destinations)
        policy, ca_file, harnesses = settings.policy, settings.ca_file, settings.harnesses
        return self.once(
            (SendPool, documents, policy, ca_file, harnesses),
            lambda: SendPool(settings.destinations, policy, harnesses=harnesses, ca_file=ca_file, io=self._io_thread()),
        )


PROCESS: Final = ProcessResources()
