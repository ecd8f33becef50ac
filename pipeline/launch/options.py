"""Every option of the pipeline: flags in, one frozen and checked ``Settings`` out. The only place with defaults."""

from __future__ import annotations

import argparse
import difflib
import itertools
import os
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from pipeline.errors import OptionError
from pipeline.launch.transactions import least_transaction_timeout_ms
from transforms.adapters.http.calls import CaFileError, check_ca_file
from transforms.adapters.user_api.client import UserApiSettings
from transforms.domain.base.secret_references import ALLOWED as TOKEN_REFERENCES
from transforms.domain.base.secret_references import is_reference
from transforms.domain.rules.cloudevents import is_source
from transforms.domain.rules.filters import Isolation
from transforms.domain.shard.step_result import ShardSettings
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.url_policy import EgressPolicy
from transforms.runtime.rule_error_sampler import DEFAULT_PER_MINUTE

DIRECT_RUNNER: Final = "DirectRunner"
# Options of files that a run on DirectRunner writes.
FILES: Final = ("decisions_file", "actions_file", "dead_letters_file")
FLINK_RUNNER: Final = "FlinkRunner"
AT_LEAST_ONCE: Final = "AT_LEAST_ONCE"
EXACTLY_ONCE: Final = "EXACTLY_ONCE"
TEXT: Final = "text"
JSON: Final = "json"

INPUT, STATE, RULES, OUTPUT, FLINK = "Input", "State and enrichment", "Rules", "Output", "Flink"
GROUPS: Final = (INPUT, STATE, RULES, OUTPUT, FLINK)


def _option(default: Any, group: str, text: str, **checks: Any) -> Any:
    """A field of ``Settings``. ``checks``: ``unit``, ``choices``, ``least``, ``most``."""
    return field(default=default, metadata={"group": group, "text": text, **checks})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All options, checked. Names are the flags' names; units are in the names or in the options table."""

    runner: str = _option(
        DIRECT_RUNNER,
        FLINK,
        "DirectRunner runs once over what is there now and ends",
        choices=(DIRECT_RUNNER, FLINK_RUNNER),
    )

    bootstrap_servers: str | None = _option(
        None, INPUT, "Kafka brokers, HOST:PORT[,HOST:PORT]; without them DirectRunner runs the bundled stream"
    )
    events_topic: str = _option("user-tracking-events", INPUT, "topic of user-tracking events, keyed by user_id")
    control_topic: str | None = _option(None, INPUT, "topic of control records (forget, inspect, destination, redrive)")
    group_id: str = _option("flink-event-trigger", INPUT, "consumer group that offsets are committed to")
    starting_offsets: str = _option(
        "committed",
        INPUT,
        "where to start without state; committed falls back to earliest",
        choices=("committed", "earliest", "latest", "timestamp"),
    )
    starting_timestamp_ms: int | None = _option(
        None, INPUT, "broker time to start from with --starting_offsets=timestamp", unit="ms since the epoch", least=0
    )
    isolation_level: str = _option(
        "read_committed",
        INPUT,
        "whether records of open transactions are read",
        choices=("read_committed", "read_uncommitted"),
    )
    kafka_property: tuple[str, ...] = _option(
        (), INPUT, "NAME=VALUE for every Kafka client, as security.protocol=SASL_SSL; may be repeated"
    )
    consumer_property: tuple[str, ...] = _option((), INPUT, "NAME=VALUE for Kafka consumers; may be repeated")
    user_key: str = _option(
        "record",
        INPUT,
        "where the user comes from: the record key, or user_id in the body",
        choices=("record", "field"),
    )
    user_shards: int = _option(
        16,
        INPUT,
        "user shards the state is kept in, fixed for its life, at least 4 a slot; 0 keys by user",
        unit="shards",
        least=0,
        most=32768,
    )
    max_parallelism: int = _option(
        128, INPUT, "Flink key groups, fixed for the state's life", unit="key groups", least=1, most=32768
    )
    batch_linger_ms: int = _option(
        10, INPUT, "longest time a record waits for others, half of it on average", unit="ms", least=0, most=10_000
    )
    batch_max_records: int = _option(1000, INPUT, "records that end the wait", unit="records", least=1, most=100_000)
    batch_max_bytes: int = _option(
        1_000_000, INPUT, "bytes that end the wait", unit="bytes", least=1024, most=8_000_000
    )
    watermark_out_of_orderness_ms: int = _option(5000, INPUT, "how late the watermark is", unit="ms", least=0)
    watermark_idleness_ms: int = _option(
        10_000, INPUT, "silence after which a partition counts as read until then", unit="ms", least=1
    )
    max_event_bytes: int = _option(
        10_240, INPUT, "larger events are dead letters", unit="bytes", least=256, most=1_000_000
    )

    state_ttl_seconds: float = _option(
        600.0, STATE, "idle time after which a user is forgotten", unit="s", least=0.1, most=315_360_000
    )
    history_size: int = _option(100, STATE, "events kept in a user's history", unit="events", least=1, most=10_000)
    history_fields: tuple[str, ...] = _option(
        (), STATE, "event field kept in the history besides event_id, event_name, timestamp; may be repeated"
    )
    user_api_url: str | None = _option(
        None, STATE, "base URL of the user API: {base}/users/{id}/profile, /visit, /history; without it nobody is known"
    )
    user_api_timeout_seconds: float = _option(2.0, STATE, "time one call may take", unit="s", least=0.01)
    user_api_concurrency: int = _option(
        32, STATE, "calls at a time per worker; a user takes three", unit="calls", least=1, most=1024
    )
    user_api_max_answer_bytes: int = _option(
        1_000_000, STATE, "larger answers are errors", unit="bytes", least=1024, most=16_000_000
    )
    user_api_token: str | None = _option(
        None,
        STATE,
        f"where workers find the user API's bearer token: {TOKEN_REFERENCES}; never the token itself; needs https, "
        "or http to this machine",
    )
    user_api_ca_file: Path | None = _option(
        None,
        STATE,
        "PEM file of the CAs that vouch for the user API instead of the public ones; an absolute path on every worker",
        unit="path",
    )
    enrichment_deadline_seconds: float = _option(
        10.0, STATE, "after it an event runs with an empty profile", unit="s", least=0.1, most=600
    )
    enrichment_retry_seconds: float = _option(
        30.0,
        STATE,
        "pause before a user whose profile did not come is asked for again",
        unit="s",
        least=0.1,
        most=86_400,
    )
    profile_max_age_seconds: float | None = _option(
        None,
        STATE,
        "age from which a profile is fetched anew, in use until then; without it never",
        unit="s",
        least=0.1,
    )
    max_waiting_bytes: int = _option(
        1_000_000,
        STATE,
        "events of one user that may wait for its profile; more run without",
        unit="bytes",
        least=1024,
        most=16_000_000,
    )
    max_user_bytes: int = _option(
        16_000_000,
        STATE,
        "profile and history of one user; the oldest history goes",
        unit="bytes",
        least=16_384,
        most=16_000_000,
    )
    allowed_lateness_seconds: float = _option(
        10.0,
        STATE,
        "how late an event may be for a sequence, cooldown or cap to take it into account",
        unit="s",
        least=0,
        most=604_800,
    )
    state_cache_mb: int = _option(1024, STATE, "memory of a worker for folded state", unit="MB", least=1)
    compact_bytes: int = _option(
        262_144, STATE, "journal bytes from which a shard is compacted", unit="bytes", least=1024
    )

    rules: Path | None = _option(
        None,
        RULES,
        "rule file or directory of *.yaml; required, but for the bundled stream or a --rules_topic that holds a set",
        unit="path",
    )
    rules_topic: str | None = _option(
        None,
        RULES,
        "topic of published rule sets, one partition, compacted: the newest is live, from the launch on; "
        "--rules counts while it is empty",
    )
    rules_isolation: Isolation = _option(
        "none",
        RULES,
        "with process, rules' Lua runs in processes of its own, one for each thread that handles events",
        choices=typing.get_args(Isolation),
    )
    rule_error_letters_per_minute: int = _option(
        DEFAULT_PER_MINUTE,
        RULES,
        "errors of a rule that become dead letters, of each worker; further ones are counted",
        unit="dead letters a minute",
        least=0,
    )

    actions_topic: str = _option("event-actions", OUTPUT, "topic of Kafka actions that name none")
    cloudevents_source: str | None = _option(
        None, OUTPUT, "ce_source of Kafka actions, a URI reference; without it event-trigger/JOB_NAME"
    )
    dead_letters_topic: str = _option("event-dead-letters", OUTPUT, "topic of dead letters")
    dead_letters_file: Path | None = _option(
        None, OUTPUT, "for the bundled stream, dead letters as JSON Lines in this file, written anew", unit="path"
    )
    inspections_topic: str = _option("user-inspections", OUTPUT, "topic of inspected users")
    audit_topic: str = _option(
        "event-audit", OUTPUT, "topic of audit records: who was forgotten when, by hash; which rule set is live where"
    )
    decisions_topic: str | None = _option(
        None, OUTPUT, "topic of the decision log, keyed by user; without it and --decisions_file there is none"
    )
    decisions_file: Path | None = _option(
        None, OUTPUT, "on DirectRunner, the decision log as JSON Lines in this file, written anew", unit="path"
    )
    decision_sample: float = _option(
        0.0,
        OUTPUT,
        "of events and rules that did not fire, the share in the decision log",
        unit="0 to 1",
        least=0,
        most=1,
    )
    actions_file: Path | None = _option(
        None, OUTPUT, "on DirectRunner, every action as JSON Lines in this file, written anew", unit="path"
    )
    destinations: Path | None = _option(None, OUTPUT, "YAML file of webhooks' destinations", unit="path")
    destination_host: tuple[str, ...] = _option(
        (),
        OUTPUT,
        "host that webhooks may go to, *.example.com for all below; without it every public one; may be repeated",
    )
    allow_private_destinations: bool = _option(
        False, OUTPUT, "for development: webhooks may go to this machine and private networks, and over plain http"
    )
    webhook_ca_file: Path | None = _option(
        None,
        OUTPUT,
        "PEM file of the CAs that vouch for receivers instead of the public ones; an absolute path on every worker",
        unit="path",
    )
    delivery_guarantee: str = _option(
        AT_LEAST_ONCE,
        OUTPUT,
        "of Kafka actions on Flink; exactly once is visible at the next checkpoint",
        choices=(AT_LEAST_ONCE, EXACTLY_ONCE),
    )
    transactional_id_prefix: str = _option("event-trigger", OUTPUT, "of exactly-once actions; unique per job")
    transaction_timeout_ms: int = _option(
        900_000,
        OUTPUT,
        "must exceed checkpoint interval plus restart, and fit the broker's maximum",
        unit="ms",
        least=1000,
    )
    producer_property: tuple[str, ...] = _option((), OUTPUT, "NAME=VALUE for Kafka producers; may be repeated")

    flink_master: str | None = _option(
        None, FLINK, "HOST:PORT of Flink's REST endpoint; without it a local cluster is started"
    )
    job_name: str = _option("event-trigger", FLINK, "name of the Flink job")
    parallelism: int = _option(2, FLINK, "subtasks of every step", unit="slots", least=1, most=32768)
    checkpointing_interval_ms: int = _option(60_000, FLINK, "time between checkpoints", unit="ms", least=100)
    savepoint_path: str | None = _option(
        None, FLINK, "savepoint or checkpoint to start from; `python -m pipeline resume` finds it"
    )
    allow_non_restored_state: bool = _option(
        False, FLINK, "start although parts of the savepoint belong to no step any more, and drop them"
    )
    start_without_state: bool = _option(
        False, FLINK, "start anew although an ended job of this name has left state on the cluster"
    )
    checkpoint_dir_is_shared: bool = _option(
        False, FLINK, "all machines of the cluster share its file:// checkpoint folder"
    )
    bundle_time_ms: int = _option(6, FLINK, "longest time of a Beam bundle", unit="ms", least=1, most=10_000)
    bundle_size: int = _option(1000, FLINK, "micro-batches that end a bundle", unit="batches", least=1)
    workers_per_task_manager: int = _option(
        2, FLINK, "Python workers of a TaskManager: its number of slots", unit="processes", least=1, most=64
    )
    worker_keep_ms: int = _option(
        0, FLINK, "how long workers wait for their job to come back after a failure", unit="ms", least=0, most=600_000
    )
    worker_command: str | None = _option(
        None, FLINK, "program that starts a Python worker on the TaskManagers; default: this environment's", unit="path"
    )
    detached: bool = _option(False, FLINK, "return as soon as Flink has taken the job")
    log_format: str = _option(
        TEXT, FLINK, "how the launcher tells what it does, on standard error", choices=(TEXT, JSON)
    )
    plan_file: Path | None = _option(
        None, FLINK, "write the Flink plan as JSON to this file, submit nothing", unit="path"
    )

    @property
    def embedded(self) -> bool:
        """Whether this is the embedded default: the bundled stream, no broker."""
        return self.runner == DIRECT_RUNNER and self.bootstrap_servers is None

    @property
    def keeps_decisions(self) -> bool:
        """Whether there is a decision log."""
        return self.decisions_topic is not None or self.decisions_file is not None

    def egress_policy(self) -> EgressPolicy:
        """Where webhooks may go."""
        return EgressPolicy(self.destination_host or None, self.allow_private_destinations)

    def shard(self, destinations: Sequence[Destination]) -> ShardSettings:
        """What the state machine needs to know."""
        return ShardSettings(
            ttl_ms=round(self.state_ttl_seconds * 1000),
            enrichment_deadline_ms=round(self.enrichment_deadline_seconds * 1000),
            enrichment_retry_ms=round(self.enrichment_retry_seconds * 1000),
            profile_max_age_ms=None
            if self.profile_max_age_seconds is None
            else round(self.profile_max_age_seconds * 1000),
            allowed_lateness_ms=round(self.allowed_lateness_seconds * 1000),
            max_waiting_bytes=self.max_waiting_bytes,
            max_user_bytes=self.max_user_bytes,
            history_size=self.history_size,
            history_fields=self.history_fields,
            max_event_bytes=self.max_event_bytes,
            user_key=self.user_key,
            destinations={one.name: one.retry for one in destinations},
            decision_sample=self.decision_sample if self.keeps_decisions else None,
        )

    def user_api(self) -> UserApiSettings:
        """How the user API is asked."""
        return UserApiSettings(
            base_url=self.user_api_url,
            call_timeout_s=self.user_api_timeout_seconds,
            concurrency=self.user_api_concurrency,
            token=self.user_api_token,
            max_answer_bytes=self.user_api_max_answer_bytes,
            ca_file=None if self.user_api_ca_file is None else str(self.user_api_ca_file),
        )

    def consumer_config(self) -> dict[str, str]:
        """Kafka consumer properties."""
        return {
            "bootstrap.servers": self.bootstrap_servers or "",
            "isolation.level": self.isolation_level,
            **kafka_properties("kafka_property", self.kafka_property),
            **kafka_properties("consumer_property", self.consumer_property),
        }

    def producer_config(self) -> dict[str, str]:
        """Kafka producer properties."""
        return {
            "bootstrap.servers": self.bootstrap_servers or "",
            "linger.ms": "1",
            **kafka_properties("kafka_property", self.kafka_property),
            **kafka_properties("producer_property", self.producer_property),
        }


HINTS: Final = typing.get_type_hints(Settings)
_NUMBERS: Final = (int, float, int | None, float | None)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(message)


def _parser(program: str) -> _Parser:
    parser = _Parser(
        prog=program,
        usage=f"{program} [OPTIONS]",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for one in fields(Settings):
        group = one.metadata["group"]
        hint = HINTS[one.name]
        arguments: dict[str, Any] = {"help": _help(one), "default": None}
        if hint is bool:
            arguments["action"] = "store_true"
        elif hint == tuple[str, ...]:
            arguments |= {"action": "append", "metavar": "VALUE"}
        else:
            arguments["metavar"] = _metavar(hint)
        groups[group].add_argument(f"--{one.name}", **arguments)
    return parser


_DESCRIPTION: Final = """\
Turns a stream of user-tracking events into actions.

Without options it runs the bundled stream and its sample rules on the embedded runner, then prints a summary.
With --runner=FlinkRunner --bootstrap_servers=… --rules=… it runs on Flink."""


def _help(one: Any) -> str:
    meta = one.metadata
    notes = [f"unit: {meta['unit']}"] if "unit" in meta else []
    if "choices" in meta:
        notes.append(f"one of {', '.join(meta['choices'])}")
    notes.append(f"default: {shown_default(one)}")
    return f"{meta['text']} ({'; '.join(notes)})".replace("%", "%%")


def shown_default(one: Any) -> str:
    """A field's default as help and README show it."""
    if one.default is None or one.default == ():
        return "none"
    return "off" if one.default is False else str(one.default)


def _metavar(hint: Any) -> str:
    return "PATH" if hint == Path | None else "NUMBER" if hint in _NUMBERS else "TEXT"


def parse(argv: Sequence[str], program: str = "python -m pipeline") -> Settings:
    """Settings from flags.

    Raises:
        OptionError: a flag is unknown or its value is not allowed.
        SystemExit: ``--help`` was asked for and printed.
    """
    known, unknown = _parser(program).parse_known_args(list(argv))
    if unknown:
        raise OptionError(_unknown(unknown[0]))
    given = {name: _convert(name, value) for name, value in vars(known).items() if value is not None}
    settings = Settings(**given)
    _check(settings)
    return settings


def parse_looking(argv: Sequence[str], program: str) -> Settings:
    """Settings of a command that takes a launch's options and only looks: ``rules`` may be missing.

    Raises:
        OptionError: as ``parse``.
    """
    given = any(argument.partition("=")[0] in ("--rules", "--rules_topic") for argument in argv)
    return parse(argv, program) if given else replace(parse([*argv, "--rules=."], program), rules=None)


def _unknown(argument: str) -> str:
    name = argument.split("=")[0].removeprefix("--")
    close = difflib.get_close_matches(name, [one.name for one in fields(Settings)], 1)
    hint = f"did you mean --{close[0]}?" if close else "--help lists all"
    return f"unknown option {argument!r}: {hint}"


def _convert(name: str, value: Any) -> Any:
    hint = HINTS[name]
    one = next(one for one in fields(Settings) if one.name == name)
    if hint is bool:
        return value
    if hint == tuple[str, ...]:
        return tuple(value)
    if hint in _NUMBERS:
        return _number(name, value, int if hint in (int, int | None) else float, one.metadata)
    if "choices" in one.metadata and value not in one.metadata["choices"]:
        raise OptionError(f"--{name} is {value!r}, allowed: {', '.join(one.metadata['choices'])}")
    if value == "":
        raise OptionError(f"--{name} is empty")
    return Path(value) if hint == Path | None else value


def _number(name: str, text: str, kind: type, meta: Any) -> float | int:
    least, most = meta.get("least"), meta.get("most")
    allowed = f"{least if least is not None else 'any'} to {most if most is not None else 'any'} {meta['unit']}"
    try:
        number: float | int = kind(text)
    except ValueError:
        raise OptionError(f"--{name} is {text!r}, allowed: a number, {allowed}") from None
    # A NaN fails both comparisons, so ask for what is allowed rather than for what is not.
    if not ((least is None or number >= least) and (most is None or number <= most)) or number in (float("inf"),):
        raise OptionError(f"--{name} is {text}, allowed: {allowed}")
    return number


def kafka_properties(name: str, pairs: Sequence[str]) -> dict[str, str]:
    """Properties of ``NAME=VALUE`` pairs given as ``--name``.

    Raises:
        OptionError: a pair is none.
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9._-]+", key):
            raise OptionError(f"--{name} is {pair!r}, allowed: NAME=VALUE")
        found[key] = value
    return found


# Set through an option of their own, or they break what the job promises.
_OWN_PROPERTIES: Final = {
    "bootstrap.servers": "--bootstrap_servers",
    "group.id": "--group_id",
    "auto.offset.reset": "--starting_offsets",
    "isolation.level": "--isolation_level",
    "transactional.id": "--transactional_id_prefix",
    "transaction.timeout.ms": "--transaction_timeout_ms",
    "enable.auto.commit": "nothing: offsets are committed with the checkpoint",
}


def _check(settings: Settings) -> None:
    for name in ("kafka_property", "consumer_property", "producer_property"):
        for key in kafka_properties(name, getattr(settings, name)):
            if key in _OWN_PROPERTIES:
                raise OptionError(f"--{name} sets {key!r}: use {_OWN_PROPERTIES[key]}")
    if settings.runner == FLINK_RUNNER and settings.bootstrap_servers is None:
        raise OptionError("--bootstrap_servers is missing: FlinkRunner reads from Kafka, give HOST:PORT of a broker")
    if settings.bootstrap_servers is not None:
        check_addresses("bootstrap_servers", settings.bootstrap_servers.split(","))
        if settings.rules is None and settings.rules_topic is None:
            raise OptionError("--rules is missing: give a rule file or a directory of *.yaml")
    if settings.rules_topic is not None:
        _check_rules_topic(settings, settings.rules_topic)
    _check_files(settings)
    _check_decisions(settings)
    _check_user_api(settings)
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
    for name in ("events", "control", "actions", "dead_letters", "inspections", "audit"):
        if getattr(settings, f"{name}_topic") == topic:
            raise OptionError(f"--rules_topic and --{name}_topic are both {topic!r}, allowed: a topic of its own")


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
    files = [(name, getattr(settings, name)) for name in FILES if getattr(settings, name) is not None]
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
        for name in ("events", "control", "rules", "actions", "dead_letters", "inspections", "audit"):
            if getattr(settings, f"{name}_topic") == topic:
                raise OptionError(
                    f"--decisions_topic and --{name}_topic are both {topic!r}, allowed: a topic of its own"
                )
    if settings.decision_sample and not settings.keeps_decisions:
        raise OptionError("--decision_sample is of no use without --decisions_topic or --decisions_file")


def _check_user_api(settings: Settings) -> None:
    # No message shows URL or token: they may hold the very secret that does not belong there.
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


def _check_ca_file(settings: Settings, name: str, path: Path) -> None:
    if not path.is_absolute():
        raise OptionError(f"--{name} is {str(path)!r}, allowed: an absolute path, the same on every worker")
    # Flink's workers may have what this machine has not, and tell themselves when they start; DirectRunner works here.
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
    # A transaction that the broker aborts before Flink could commit it is lost: notes/reliability.md, "Config traps".
    least = least_transaction_timeout_ms(settings.checkpointing_interval_ms)
    if settings.transaction_timeout_ms < least:
        raise OptionError(
            f"--transaction_timeout_ms is {settings.transaction_timeout_ms}, allowed: at least {least}, twice the "
            "checkpoint interval, 20 s for a checkpoint and a minute for a restart; shorter transactions are "
            "aborted and their actions lost"
        )


# What producers promise with it, and what would be lost otherwise.
_SAFE_PRODUCERS: Final = {
    "acks": (("all", "-1"), "a record that only one broker has is lost with that broker"),
    "enable.idempotence": (("true",), "tries of one record may overtake another of the same user, or arrive twice"),
}


def _check_producer(settings: Settings) -> None:
    for name in ("kafka_property", "producer_property"):
        for key, value in kafka_properties(name, getattr(settings, name)).items():
            allowed, why = _SAFE_PRODUCERS.get(key, ((value,), ""))
            if value not in allowed:
                raise OptionError(f"--{name} sets {key!r} to {value!r}, allowed: {' or '.join(allowed)}; {why}")


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


def check_addresses(name: str, addresses: Sequence[str]) -> None:
    """Raise an ``OptionError`` if one of the addresses given as ``--name`` is not HOST:PORT."""
    for address in addresses:
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise OptionError(f"--{name} is {address!r}, allowed: HOST:PORT")
