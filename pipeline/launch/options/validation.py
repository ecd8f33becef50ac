"""Which combinations of options are refused before anything starts."""

from __future__ import annotations

import itertools
import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pipeline.errors import OptionError
from pipeline.launch.options.fields import AT_LEAST_ONCE, DIRECT_RUNNER, EXACTLY_ONCE, FLINK_RUNNER
from pipeline.launch.options.kafka_properties import check_addresses, kafka_properties
from pipeline.launch.options.settings import Settings
from pipeline.launch.transactions import least_transaction_timeout_ms
from transforms.adapters.http.calls import CaFileError, check_ca_file
from transforms.adapters.kafka.clients import is_secret_property
from transforms.domain.base.secret_references import ALLOWED as TOKEN_REFERENCES
from transforms.domain.base.secret_references import LOCAL, is_reference
from transforms.domain.rules.cloudevents import is_source

# Options that name a file which a run on DirectRunner writes.
OUTPUT_FILES: Final = ("decisions_file", "actions_file", "dead_letters_file")
# Properties that have an option of their own, or that would break what the job promises.
_OWN_PROPERTIES: Final = {
    "bootstrap.servers": "--bootstrap_servers",
    "group.id": "--group_id",
    "auto.offset.reset": "--starting_offsets",
    "isolation.level": "--isolation_level",
    "transactional.id": "--transactional_id_prefix",
    "transaction.timeout.ms": "--transaction_timeout_ms",
    "partition.discovery.interval.ms": "--partition_discovery_seconds",
    "enable.auto.commit": "nothing: offsets are committed with the checkpoint",
}


def check_combinations(settings: Settings, rules_required: bool = True) -> None:
    """Refuse options that are each allowed but not together, and with ``rules_required`` a run on Kafka without rules.

    Raises:
        OptionError: names the options, their values and what is allowed.
    """
    for name in ("kafka_property", "consumer_property", "producer_property"):
        for key, value in kafka_properties(name, getattr(settings, name)).items():
            if key in _OWN_PROPERTIES:
                raise OptionError(f"--{name} sets {key!r}: use {_OWN_PROPERTIES[key]}")
            if settings.runner == FLINK_RUNNER and is_secret_property(key) and value.startswith("aws-secret:"):
                raise OptionError(f"--{name} sets {key!r} to {value!r}, allowed on {FLINK_RUNNER}: {LOCAL}")
    settings.kafka_access().check(on_flink=settings.runner == FLINK_RUNNER)
    _check_kafka_files(settings)
    if settings.runner == FLINK_RUNNER and settings.bootstrap_servers is None:
        raise OptionError("--bootstrap_servers is missing: FlinkRunner reads from Kafka, give HOST:PORT of a broker")
    if settings.bootstrap_servers is not None:
        check_addresses("bootstrap_servers", settings.bootstrap_servers.split(","))
        if rules_required and settings.rules is None and settings.rules_topic is None:
            raise OptionError("--rules is missing: give a rule file or a directory of *.yaml")
    if settings.rules_topic is not None:
        _check_rules_topic(settings, settings.rules_topic)
    for pattern in settings.action_topics:
        if not re.fullmatch(r"[A-Za-z0-9._*?-]{1,249}", pattern):
            raise OptionError(f"--action_topics is {pattern!r}, allowed: a topic's name, or a pattern with * and ?")
        if pattern in settings.own_topics.values():
            raise OptionError(f"--action_topics is {pattern!r}, allowed: a topic that the job itself does not use")
    _check_files(settings)
    _check_decisions(settings)
    _check_deliveries(settings)
    _check_own_topic(settings, "actions", settings.actions_topic)
    _check_user_api(settings)
    for name in ("dead_letters_key", "user_hash_key"):
        reference: str | None = getattr(settings, name)
        if reference is not None and not is_reference(reference):
            # The message does not show it: a user may have put the key itself there.
            raise OptionError(f"--{name} is no reference, allowed: {TOKEN_REFERENCES}")
    if settings.cloudevents_source is not None and not is_source(settings.cloudevents_source):
        raise OptionError(
            f"--cloudevents_source is {settings.cloudevents_source!r}, allowed: a URI reference, ASCII without spaces"
        )
    for name in ("webhook_ca_file", "destination_host", "allow_private_destinations"):
        if getattr(settings, name) and settings.destinations is None:
            raise OptionError(f"--{name} is of no use without --destinations")
    if settings.webhook_ca_file is not None:
        _check_ca_file(settings, "webhook_ca_file", settings.webhook_ca_file)
    if settings.flink_master is not None:
        check_addresses("flink_master", [settings.flink_master])
    if (settings.starting_offsets == "timestamp") != (settings.starting_timestamp_ms is not None):
        raise OptionError("--starting_timestamp_ms and --starting_offsets=timestamp belong together: give both or none")
    for partition in settings.skip_dead_partitions:
        # ASCII: isdigit alone takes digits of other scripts and superscripts.
        if not (partition.isascii() and partition.isdigit()):
            raise OptionError(f"--skip_dead_partitions is {partition!r}, allowed: a partition's number, from 0")
    if settings.parallelism > settings.max_parallelism:
        raise OptionError(
            f"--parallelism is {settings.parallelism}, allowed: up to --max_parallelism, {settings.max_parallelism}"
        )
    if settings.user_shards > 0 and settings.parallelism > settings.user_shards:
        raise OptionError(
            f"--parallelism is {settings.parallelism}, allowed: up to --user_shards, {settings.user_shards}; "
            "further subtasks would have no shard"
        )
    if settings.delivery_guarantee == EXACTLY_ONCE:
        _check_exactly_once(settings)
    _check_producer(settings)
    _check_start(settings)


def _check_rules_topic(settings: Settings, topic: str) -> None:
    if settings.bootstrap_servers is None:
        raise OptionError(f"--rules_topic is {topic!r}, but the bundled stream has no Kafka: give --bootstrap_servers")
    if settings.user_shards == 0:
        raise OptionError(
            f"--rules_topic is {topic!r}, allowed with --user_shards from 1 on: with 0 there is no list of shards that "
            "a set could be sent to"
        )
    if settings.isolation_level != "read_committed":
        raise OptionError(
            f"--rules_topic is {topic!r}, allowed with --isolation_level=read_committed: a set whose publishing was "
            "given up would be read too, and its number is used again"
        )
    _check_own_topic(settings, "rules", topic)


def _check_deliveries(settings: Settings) -> None:
    topic = settings.deliveries_topic
    if topic is None:
        return
    if settings.runner != FLINK_RUNNER:
        raise OptionError(
            f"--deliveries_topic is {topic!r}, allowed: on {FLINK_RUNNER}; {settings.runner} has no checkpoint from "
            "which webhooks could be repeated"
        )
    if settings.user_shards == 0:
        raise OptionError(
            f"--deliveries_topic is {topic!r}, allowed with --user_shards from 1 on: with 0 there would have to be a "
            "partition for each user"
        )
    if settings.destinations is None:
        raise OptionError("--deliveries_topic is of no use without --destinations")
    _check_own_topic(settings, "deliveries", topic)
    if topic == settings.decisions_topic:
        raise OptionError(f"--deliveries_topic and --decisions_topic are both {topic!r}, allowed: a topic of its own")


def _check_own_topic(settings: Settings, own: str, topic: str) -> None:
    for name in ("events", "control", "rules", "actions", "dead_letters", "inspections", "audit"):
        if name != own and getattr(settings, f"{name}_topic") == topic:
            raise OptionError(f"--{own}_topic and --{name}_topic are both {topic!r}, allowed: a topic of its own")


def _check_files(settings: Settings) -> None:
    for name in ("decisions_file", "actions_file"):
        path = getattr(settings, name)
        if path is not None and settings.runner != DIRECT_RUNNER:
            hint = "; use --decisions_topic" if name == "decisions_file" else ""
            raise OptionError(
                f"--{name} is {str(path)!r}, allowed: on {DIRECT_RUNNER}, as workers write no files{hint}"
            )
    if settings.dead_letters_file is not None and not settings.embedded:
        raise OptionError(
            f"--dead_letters_file is {str(settings.dead_letters_file)!r}, allowed: for the bundled stream, which has "
            "no Kafka; use --dead_letters_topic"
        )
    files = [(name, getattr(settings, name)) for name in OUTPUT_FILES if getattr(settings, name) is not None]
    for (name, path), (other, other_path) in itertools.combinations(files, 2):
        if path == other_path:
            raise OptionError(f"--{name} and --{other} are both {str(path)!r}, allowed: a file of its own")


def _check_decisions(settings: Settings) -> None:
    topic = settings.decisions_topic
    if topic is not None:
        if settings.bootstrap_servers is None:
            raise OptionError(
                f"--decisions_topic is {topic!r}, but the bundled stream has no Kafka: use --decisions_file"
            )
        if settings.decisions_file is not None:
            raise OptionError("--decisions_topic and --decisions_file are both given, allowed: one decision log")
        _check_own_topic(settings, "decisions", topic)
    if settings.decision_sample and not settings.keeps_decisions:
        raise OptionError("--decision_sample is of no use without --decisions_topic or --decisions_file")


def _check_user_api(settings: Settings) -> None:
    # No message shows the URL or the token: a user may have put the secret itself there.
    url, token = settings.user_api_url, settings.user_api_token
    if url is not None and not _is_base_url(url):
        raise OptionError(
            "--user_api_url is no base URL, allowed: http(s)://HOST[:PORT][/PATH], without user, query or fragment"
        )
    if token is not None:
        if not is_reference(token):
            raise OptionError(f"--user_api_token is no reference, allowed: {TOKEN_REFERENCES}")
        if url is None:
            raise OptionError("--user_api_token is of no use without --user_api_url")
        if not _keeps_secrets(url):
            raise OptionError(
                "--user_api_token would travel in clear text, allowed with it: --user_api_url=https://…, or http:// to "
                "localhost, 127.0.0.0/8 or [::1]"
            )
    if settings.user_api_ca_file is not None:
        if url is None or urlsplit(url).scheme != "https":
            raise OptionError("--user_api_ca_file is of no use without --user_api_url=https://…")
        _check_ca_file(settings, "user_api_ca_file", settings.user_api_ca_file)


def _check_kafka_files(settings: Settings) -> None:
    for name in ("kafka_ca_file", "kafka_certificate_file"):
        path = getattr(settings, name)
        if path is not None:
            _check_ca_file(settings, name, path)


def _check_ca_file(settings: Settings, name: str, path: Path) -> None:
    if not path.is_absolute():
        raise OptionError(f"--{name} is {str(path)!r}, allowed: an absolute path, the same on every worker")
    # On Flink the file need only be on the workers, which check it when they start. DirectRunner reads it here.
    if settings.runner == DIRECT_RUNNER or os.access(path, os.R_OK):
        try:
            check_ca_file(str(path))
        except CaFileError as error:
            raise OptionError(f"--{name} is {error}") from None


def _keeps_secrets(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        return parts.scheme == "https" or ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is no port
    except ValueError:
        return False
    visible = text.isascii() and text.isprintable() and " " not in text
    plain = not ({"?", "#", "@"} & set(text))
    return parts.scheme in ("http", "https") and bool(parts.hostname) and visible and plain


def _check_exactly_once(settings: Settings) -> None:
    if settings.runner != FLINK_RUNNER:
        raise OptionError(f"--delivery_guarantee is {EXACTLY_ONCE}, allowed on {settings.runner}: {AT_LEAST_ONCE}")
    # A transaction that the broker aborts before Flink can commit it is lost.
    least = least_transaction_timeout_ms(settings.checkpointing_interval_ms)
    if settings.transaction_timeout_ms < least:
        raise OptionError(
            f"--transaction_timeout_ms is {settings.transaction_timeout_ms}, allowed: at least {least}, twice the "
            "checkpoint interval, 20 s for a checkpoint and a minute for a restart; shorter transactions are "
            "aborted and their actions lost"
        )


# Producer property -> allowed values, and what another value would lose.
_SAFE_PRODUCERS: Final = {
    "acks": (("all", "-1"), "a record that only one broker has is lost with that broker"),
    "enable.idempotence": (("true",), "tries of one record may overtake another of the same user, or arrive twice"),
}


def _check_producer(settings: Settings) -> None:
    for name in ("kafka_property", "producer_property"):
        for key, value in kafka_properties(name, getattr(settings, name)).items():
            allowed, reason = _SAFE_PRODUCERS.get(key, ((value,), ""))
            if value not in allowed:
                raise OptionError(f"--{name} sets {key!r} to {value!r}, allowed: {' or '.join(allowed)}; {reason}")


def _check_start(settings: Settings) -> None:
    if settings.savepoint_path is None:
        if settings.allow_non_restored_state:
            raise OptionError("--allow_non_restored_state is of no use without --savepoint_path")
    elif settings.runner != FLINK_RUNNER:
        raise OptionError(
            f"--savepoint_path is {settings.savepoint_path!r}, allowed: on {FLINK_RUNNER}; {settings.runner} would "
            "start without that state"
        )
    elif settings.start_without_state:
        raise OptionError("--savepoint_path and --start_without_state are both given, allowed: one of them")
