"""What a launch on Flink checks before it submits: a configuration that loses data is refused.

What options alone show is refused by ``pipeline.launch.options``; docs/operations.md has all refusals in a table.
``doctor`` also checks what only keeps a job from running.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pipeline.console import warn
from pipeline.errors import OptionError
from pipeline.job.jobs import ended_jobs
from pipeline.job.saved_state import newest_state
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.cluster_settings import (
    KafkaAdminError,
    broker_settings,
    missing_topics,
    topic_partitions,
    topic_settings,
)
from pipeline.launch.findings import FAIL, Cluster, check_beam, check_checkpoint_dir, check_jars
from pipeline.launch.options import EXACTLY_ONCE, Settings
from runners.flink.artifacts import FLINK_VERSION
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest
from transforms.domain.rules.action_topics import topics_of
from transforms.domain.rules.model import KafkaAction, Rule

_LONGEST_TRANSACTION: Final = "transaction.max.timeout.ms"


def check_cluster(settings: Settings, rest: FlinkRest) -> None:
    """Check that the cluster can keep what the job promises.

    Raises:
        LocalStackError: Flink does not answer, or this cluster cannot.
        OptionError: the cluster can, but not with these options.
    """
    cluster = Cluster.read(rest)
    needed = FLINK_VERSION.rpartition(".")[0]
    if cluster.version.rpartition(".")[0] != needed:
        raise LocalStackError(
            f"Flink at {rest.url} is {cluster.version}, allowed: {needed}, which the Beam runner is made for"
        )
    for finding in (
        check_beam(),
        check_jars(cluster),
        check_checkpoint_dir(cluster, settings.checkpoint_dir_is_shared),
    ):
        if finding.outcome == FAIL:
            raise LocalStackError(f"{finding.check} at {rest.url}: {finding.message}: {finding.advice}")
    jobs = ended_jobs(rest, settings.job_name)
    if settings.savepoint_path is not None or settings.start_without_state:
        return
    for job in jobs:
        state = newest_state(rest, job)
        if state is not None:
            raise OptionError(
                f"--savepoint_path is missing: the last job named {settings.job_name!r} has left state, with users, "
                f"caps and webhooks that are not delivered yet, and all would be lost: {state}. Allowed: "
                "`event-trigger resume` with these options, --savepoint_path, or --start_without_state"
            )


def check_kafka(settings: Settings) -> None:
    """Check that Kafka keeps what the job promises, as far as this machine may read its settings.

    Raises:
        OptionError: a topic is compacted, a dead partition does not exist, or the
            brokers' longest transaction is too short.
    """
    config = for_librdkafka(settings.consumer_config())
    try:
        policies = topic_settings(config, (settings.events_topic, settings.dead_letters_topic), "cleanup.policy")
        limits = broker_settings(config, _LONGEST_TRANSACTION) if settings.delivery_guarantee == EXACTLY_ONCE else []
        partitions = topic_partitions(config).get(settings.events_topic) if settings.skip_dead_partitions else None
    except KafkaAdminError as error:
        warn(f"topics and transactions were not checked, Kafka cannot be asked from here: {error}")
        return
    for name in ("events_topic", "dead_letters_topic"):
        policy = policies.get(getattr(settings, name), "")
        if "compact" in policy.split(","):
            raise OptionError(
                f"--{name} is {getattr(settings, name)!r}, whose cleanup.policy is {policy}, allowed: delete; of "
                "records with the same key only the newest would stay, read or not"
            )
    for dead in settings.skip_dead_partitions:
        if partitions is not None and int(dead) >= partitions:
            raise OptionError(
                f"--skip_dead_partitions is {dead}, allowed: up to {partitions - 1}, as {settings.events_topic!r} has "
                f"{partitions} partitions; the partition that is dead would go on holding the stream's time"
            )
    lowest_limit_ms = min(map(int, limits), default=settings.transaction_timeout_ms)
    if settings.transaction_timeout_ms > lowest_limit_ms:
        raise OptionError(
            f"--transaction_timeout_ms is {settings.transaction_timeout_ms}, allowed: up to {lowest_limit_ms}, the "
            f"brokers' {_LONGEST_TRANSACTION}; they would refuse every transaction"
        )


def check_action_topics(settings: Settings, rules: Iterable[Rule]) -> None:
    """Check that the topics exist that Kafka actions write: a missing one would stall and restart the job.

    Raises:
        OptionError: one does not, and brokers do not create topics by themselves.
    """
    has_kafka_actions = any(isinstance(action, KafkaAction) for rule in rules for action in rule.actions)
    if not has_kafka_actions:
        return
    config = for_librdkafka(settings.client_config())
    try:
        problem = missing_topics(config, (settings.actions_topic, *topics_of(rules)))
    except KafkaAdminError as error:
        warn(f"topics of actions were not checked, Kafka cannot be asked from here: {error}")
        return
    if problem is not None:
        raise OptionError(f"Kafka actions of rules: {problem}")


def check_topics_exist(settings: Settings) -> None:
    """Check that the topics exist that a run on DirectRunner reads.

    Raises:
        OptionError: one does not, or Kafka does not answer.
    """
    try:
        topics = topic_partitions(for_librdkafka(settings.consumer_config()))
    except KafkaAdminError as error:
        raise OptionError(f"--bootstrap_servers is {settings.bootstrap_servers!r}: {error}") from None
    for name in ("events_topic", "control_topic", "rules_topic"):
        topic = getattr(settings, name)
        if topic is not None and topic not in topics:
            raise OptionError(f"--{name} is {topic!r}, allowed: a topic that exists")
