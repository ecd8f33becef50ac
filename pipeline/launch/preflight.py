"""What a launch on Flink asks its surroundings before it submits: a configuration that loses data is refused.

What options alone can show is refused by ``pipeline.launch.options``; docs/operations.md has all of it in a table.
``doctor`` asks for more, which only keeps a job from running.
"""

from __future__ import annotations

from typing import Final

from pipeline.console import warn
from pipeline.errors import OptionError
from pipeline.job.saved_state import ended_jobs, newest_state
from pipeline.launch.checks import FAIL, Cluster, Finding, check_beam, check_checkpoint_dir, check_jars
from pipeline.launch.options import EXACTLY_ONCE, Settings
from pipeline.launch.probes import KafkaProblemError, broker_settings, topic_settings
from runners.flink.artifacts import FLINK_VERSION
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest

_LONGEST_TRANSACTION: Final = "transaction.max.timeout.ms"


def check_cluster(settings: Settings, rest: FlinkRest) -> None:
    """Whether the cluster can keep what the job promises.

    Raises:
        LocalStackError: nobody answers, or the cluster cannot.
        OptionError: it can, but not with these options.
    """
    cluster = Cluster.asked(rest)
    found, needed = cluster.version, FLINK_VERSION.rpartition(".")[0]
    if found.rpartition(".")[0] != needed:
        raise LocalStackError(f"Flink at {rest.url} is {found}, allowed: {needed}, which the Beam runner is made for")
    for finding in (
        check_beam(),
        check_jars(cluster),
        check_checkpoint_dir(cluster, settings.checkpoint_dir_is_shared),
    ):
        _refuse(finding, rest.url)
    jobs = ended_jobs(rest, settings.job_name)
    if settings.savepoint_path is not None or settings.start_without_state:
        return
    for job in jobs:
        state = newest_state(rest, job)
        if state is not None:
            raise OptionError(
                f"--savepoint_path is missing: the last job named {settings.job_name!r} has left state, with users, "
                f"caps and webhooks that are not delivered yet, and all would be lost: {state}. Allowed: `python -m "
                "pipeline resume` with these options, --savepoint_path, or --start_without_state"
            )


def _refuse(finding: Finding, url: str) -> None:
    if finding.outcome == FAIL:
        raise LocalStackError(f"{finding.check} at {url}: {finding.said}: {finding.advice}")


def check_kafka(settings: Settings) -> None:
    """Whether Kafka keeps what the job promises, as far as it can be asked from here.

    Raises:
        OptionError: it does not.
    """
    config = settings.consumer_config()
    try:
        policies = topic_settings(config, (settings.events_topic, settings.dead_letters_topic), "cleanup.policy")
        longest = broker_settings(config, _LONGEST_TRANSACTION) if settings.delivery_guarantee == EXACTLY_ONCE else []
    except KafkaProblemError as error:
        warn(f"topics and transactions were not checked, Kafka cannot be asked from here: {error}")
        return
    for name in ("events_topic", "dead_letters_topic"):
        policy = policies.get(getattr(settings, name), "")
        if "compact" in policy.split(","):
            raise OptionError(
                f"--{name} is {getattr(settings, name)!r}, whose cleanup.policy is {policy}, allowed: delete; of "
                "records with the same key only the newest would stay, read or not"
            )
    least = min((int(one) for one in longest), default=settings.transaction_timeout_ms)
    if settings.transaction_timeout_ms > least:
        raise OptionError(
            f"--transaction_timeout_ms is {settings.transaction_timeout_ms}, allowed: up to {least}, the brokers' "
            f"{_LONGEST_TRANSACTION}; they would refuse every transaction"
        )
