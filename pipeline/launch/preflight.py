"""What a launch on Flink checks before it submits: a configuration that loses data is refused.

What options alone show is refused by ``pipeline.launch.options``; docs/operations.md has all refusals in a table.
``doctor`` also checks what only keeps a job from running.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pipeline.console import did_you_mean, warn
from pipeline.errors import OptionError
from pipeline.job.jobs import ended_jobs
from pipeline.job.saved_state import newest_state
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.cluster_settings import (
    KafkaAdminError,
    broker_settings,
    lacking_topics,
    missing_topics,
    topic_partitions,
    topic_settings,
)
from pipeline.kafka.security import AWS_MSK_IAM
from pipeline.launch.findings import FAIL, Cluster, check_beam, check_checkpoint_dir, check_jars, check_msk_iam
from pipeline.launch.options import EXACTLY_ONCE, Settings
from pipeline.launch.wanted_topics import least_ledger_retention_ms
from runners.flink.artifacts import FLINK_VERSION
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest
from transforms.domain.rules.action_topics import topics_of
from transforms.domain.rules.model import KafkaAction, Rule

_NOT_COMPACTED: Final = ("events_topic", "dead_letters_topic", "deliveries_topic")
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
        *([check_msk_iam(cluster)] if settings.kafka_sasl_mechanism == AWS_MSK_IAM else []),
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


def check_kafka(settings: Settings) -> bool:
    """Check that Kafka keeps what the job promises; returns whether this machine may read its settings.

    Raises:
        OptionError: a topic is compacted, a dead partition does not exist, or the
            brokers' longest transaction is too short.
    """
    config = for_librdkafka(settings.consumer_config(), settings.kafka_access())
    try:
        topics = [topic for topic in map(settings.own_topics.get, _NOT_COMPACTED) if topic is not None]
        policies = topic_settings(config, topics, "cleanup.policy")
        retention = {} if settings.deliveries_topic is None else topic_settings(config, topics, "retention.ms")
        limits = broker_settings(config, _LONGEST_TRANSACTION) if settings.delivery_guarantee == EXACTLY_ONCE else []
        partitions = topic_partitions(config).get(settings.events_topic) if settings.skip_dead_partitions else None
    except KafkaAdminError as error:
        warn(f"topics and transactions were not checked, Kafka cannot be asked from here: {error}")
        return False
    for name in _NOT_COMPACTED:
        policy = policies.get(settings.own_topics.get(name, ""), "")
        if "compact" in policy.split(","):
            raise OptionError(
                f"--{name} is {getattr(settings, name)!r}, whose cleanup.policy is {policy}, allowed: delete; of "
                "records with the same key only the newest would stay, read or not"
            )
    _check_retention(settings, int(retention.get(settings.deliveries_topic or "", "-1")))
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
    return True


def _check_retention(settings: Settings, retention_ms: int) -> None:
    least_ms = least_ledger_retention_ms(settings)
    if 0 <= retention_ms < least_ms:
        raise OptionError(
            f"--deliveries_topic is {settings.deliveries_topic!r}, whose retention.ms is {retention_ms}, allowed: at "
            f"least {least_ms}, an hour and ten checkpoint intervals, or -1; after a longer outage the webhooks since "
            "the last checkpoint would be repeated"
        )


def check_topics(settings: Settings, rules: Iterable[Rule]) -> None:
    """Check that every topic exists that the options name, and those of Kafka actions.

    A job reads or writes each sooner or later, and a missing one would stall and restart it.

    Raises:
        OptionError: one does not exist, and brokers do not create it by themselves; or Kafka does not answer.
    """
    rules = tuple(rules)
    writes_actions = any(isinstance(action, KafkaAction) for rule in rules for action in rule.actions)
    config = for_librdkafka(settings.client_config(), settings.kafka_access())
    try:
        missing, existing = lacking_topics(config, settings.needed_topics(writes_actions))
        problem = missing_topics(config, topics_of(rules)) if writes_actions else None
        ledger = settings.deliveries_topic
        partitions = topic_partitions(config).get(ledger, 0) if ledger is not None and not missing else 0
    except KafkaAdminError as error:
        raise OptionError(f"--bootstrap_servers is {settings.bootstrap_servers!r}: {error}") from None
    if missing:
        named = [f"--{option} is {topic!r}{_meant(topic, existing)}" for option, topic in missing.items()]
        raise OptionError(f"{', '.join(named)}, allowed: a topic that exists at {settings.bootstrap_servers}")
    if ledger is not None and partitions < settings.user_shards:
        raise OptionError(
            f"--deliveries_topic is {ledger!r} with {partitions} partitions, allowed: at least {settings.user_shards}, "
            "one for each of --user_shards"
        )
    if problem is not None:
        raise OptionError(f"Kafka actions of rules: {problem}")


def _meant(topic: str, existing: Iterable[str]) -> str:
    hint = did_you_mean(topic, existing)
    return f" ({hint})" if hint else ""
