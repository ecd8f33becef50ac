"""Every option by its group. A field is a flag, a key of event-trigger.yaml and a variable; defaults are only here."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pipeline.kafka.security import Mechanism, Protocol
from pipeline.launch.options.fields import REFERENCE, OptionGroup, option
from transforms.adapters.lua.engines import Isolation
from transforms.domain.base.secret_references import ALLOWED as TOKEN_REFERENCES
from transforms.domain.events.event import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS
from transforms.domain.rules.quarantine import DEFAULT_TIME_SHARE
from transforms.runtime.rule_error_sampler import DEFAULT_PER_MINUTE


class KafkaOptions(OptionGroup):
    """How every Kafka client reaches the brokers, on Flink and outside."""

    heading: ClassVar = "Kafka"

    bootstrap_servers: str | None = option(
        None, "Kafka brokers, HOST:PORT[,HOST:PORT]; without them DirectRunner runs the bundled stream"
    )
    kafka_security: Protocol = option("PLAINTEXT", "whether clients use TLS (SSL) and log in (SASL)")
    kafka_sasl_mechanism: Mechanism | None = option(None, "how clients log in, with SASL_PLAINTEXT or SASL_SSL")
    kafka_user: str | None = option(None, "user for PLAIN and SCRAM: the name, or a reference to where it lies")
    kafka_password: str | None = option(
        None,
        f"where every Kafka client finds the user's password: {TOKEN_REFERENCES}; on Flink not in AWS",
        unit=REFERENCE,
    )
    kafka_ca_file: Path | None = option(
        None,
        "PEM file of the CAs that vouch for brokers instead of the public ones; an absolute path on every machine",
        unit="path",
    )
    kafka_certificate_file: Path | None = option(
        None,
        "PEM file of the client's certificate, for brokers that ask for one; an absolute path on every machine",
        unit="path",
    )
    kafka_key: str | None = option(
        None,
        f"where every Kafka client finds the certificate's private key, PKCS #8 in PEM: {TOKEN_REFERENCES}; on Flink "
        "not in AWS",
        unit=REFERENCE,
    )
    kafka_key_passphrase: str | None = option(
        None,
        f"where every Kafka client finds the passphrase of the key, if it has one: {TOKEN_REFERENCES}",
        unit=REFERENCE,
    )
    kafka_property: tuple[str, ...] = option(
        (), "NAME=VALUE for every Kafka client, as socket.keepalive.enable=true; may be repeated"
    )
    consumer_property: tuple[str, ...] = option((), "NAME=VALUE for Kafka consumers; may be repeated")
    producer_property: tuple[str, ...] = option((), "NAME=VALUE for Kafka producers; may be repeated")


class InputOptions(OptionGroup):
    """What the Kafka sources read."""

    heading: ClassVar = "Input"

    events_topic: str = option("user-tracking-events", "topic of user-tracking events, keyed by user_id")
    control_topic: str | None = option(None, "topic of control records (forget, inspect, destination, redrive)")
    group_id: str = option("flink-event-trigger", "consumer group that offsets are committed to")
    starting_offsets: Literal["committed", "earliest", "latest", "timestamp"] = option(
        "committed", "where to start without state; committed falls back to earliest"
    )
    starting_timestamp_ms: int | None = option(
        None, "broker time to start from with --starting_offsets=timestamp", unit="ms since the epoch", least=0
    )
    isolation_level: Literal["read_committed", "read_uncommitted"] = option(
        "read_committed", "whether records of open transactions are read"
    )
    user_key: Literal["record", "field"] = option(
        "record", "where the user comes from: the record key, or user_id in the body"
    )
    user_shards: int = option(
        16,
        "user shards the state is kept in, fixed for its life, at least 4 a slot; 0 keys by user",
        unit="shards",
        least=0,
        most=32768,
    )
    max_parallelism: int = option(
        128, "Flink key groups, fixed for the state's life", unit="key groups", least=1, most=32768
    )
    batch_linger_ms: int = option(
        10, "longest time a record waits for others, half of it on average", unit="ms", least=0, most=10_000
    )
    batch_max_records: int = option(1000, "records that end the wait", unit="records", least=1, most=100_000)
    batch_max_bytes: int = option(1_000_000, "bytes that end the wait", unit="bytes", least=1024, most=8_000_000)
    watermark_out_of_orderness_ms: int = option(5000, "how late the watermark is", unit="ms", least=0)
    watermark_idleness_ms: int = option(
        10_000,
        "silence after which a partition that brokers confirm to be read to its end counts as read until then",
        unit="ms",
        least=1,
    )
    partition_discovery_seconds: float = option(
        30.0, "time within which added partitions are found and read from their start", unit="s", least=0.1, most=86_400
    )
    skip_dead_partitions: tuple[str, ...] = option(
        (), "partition of the events topic that is dead for good: the stream's time goes on without it; may be repeated"
    )
    max_event_bytes: int = option(10_240, "larger events are dead letters", unit="bytes", least=256, most=1_000_000)
    min_event_timestamp_ms: int = option(
        MIN_TIMESTAMP_MS,
        "events with an earlier timestamp are dead letters; default: the year 2000",
        unit="ms since the epoch",
        least=1,
        most=MAX_TIMESTAMP_MS,
    )
    max_event_lead_seconds: float = option(
        86_400.0,
        "events with a timestamp further ahead of their record's Kafka time are dead letters",
        unit="s",
        least=1,
        most=315_360_000,
    )


class StateOptions(OptionGroup):
    """What the stateful step keeps of users, and how it calls the user API."""

    heading: ClassVar = "State and enrichment"

    state_ttl_seconds: float = option(
        600.0, "idle time after which a user is forgotten", unit="s", least=0.1, most=315_360_000
    )
    history_size: int = option(100, "events kept in a user's history", unit="events", least=1, most=10_000)
    history_fields: tuple[str, ...] = option(
        (), "event field kept in the history besides event_id, event_name, timestamp, also a path: parameters.sku"
    )
    user_api_url: str | None = option(
        None, "base URL of the user API: {base}/users/{id}/profile, /visit, /history; without it nobody is known"
    )
    user_api_layout: Literal["three", "one"] = option(
        "three",
        "documents of a user: profile, visit and history alone, or one at {base}/users/{id} with all three as fields",
    )
    user_api_timeout_seconds: float = option(2.0, "time one call may take", unit="s", least=0.01)
    user_api_concurrency: int = option(
        128, "users at a time per worker; each has up to three calls in flight", unit="users", least=1, most=1024
    )
    user_api_max_answer_bytes: int = option(
        1_000_000, "larger answers are errors", unit="bytes", least=1024, most=16_000_000
    )
    user_api_token: str | None = option(
        None,
        f"where workers find the user API's bearer token: {TOKEN_REFERENCES}; never the token itself; needs https, "
        "or http to this machine",
        unit=REFERENCE,
    )
    user_api_ca_file: Path | None = option(
        None,
        "PEM file of the CAs that vouch for the user API instead of the public ones; an absolute path on every worker",
        unit="path",
    )
    enrichment_deadline_seconds: float = option(
        10.0, "after it an event runs with an empty profile", unit="s", least=0.1, most=600
    )
    enrichment_retry_seconds: float = option(
        30.0, "pause before a user whose profile did not come is asked for again", unit="s", least=0.1, most=86_400
    )
    profile_max_age_seconds: float | None = option(
        None, "age from which a profile is fetched anew, in use until then; without it never", unit="s", least=0.1
    )
    max_waiting_bytes: int = option(
        1_000_000,
        "events of one user that may wait for its profile; more run without",
        unit="bytes",
        least=1024,
        most=16_000_000,
    )
    max_user_bytes: int = option(
        16_000_000,
        "profile and history of one user; the oldest history goes",
        unit="bytes",
        least=16_384,
        most=16_000_000,
    )
    allowed_lateness_seconds: float = option(
        10.0,
        "how late an event may be for a sequence, cooldown or cap to take it into account",
        unit="s",
        least=0,
        most=604_800,
    )
    state_cache_mb: int = option(1024, "memory of a worker for folded state", unit="MB", least=1)
    compact_bytes: int = option(262_144, "journal bytes from which a shard is compacted", unit="bytes", least=1024)


class RuleOptions(OptionGroup):
    """Where rules come from, and how their Lua runs."""

    heading: ClassVar = "Rules"

    rules: Path | None = option(
        None,
        "rule file or directory of *.yaml; required, but for the bundled stream or a --rules_topic that holds a set",
        unit="path",
    )
    rules_topic: str | None = option(
        None,
        "topic of published rule sets, one partition, compacted: the newest is live, from the launch on; "
        "--rules counts while it is empty",
    )
    rules_isolation: Isolation = option(
        "none", "with process, rules' Lua runs in processes of its own, one for each thread that handles events"
    )
    rule_time_share: float = option(
        DEFAULT_TIME_SHARE,
        "of a minute of a worker, the share that a rule's Lua may take before it is set aside; 1 for no bound",
        unit="0 to 1",
        least=0.01,
        most=1,
    )
    rule_error_letters_per_minute: int = option(
        DEFAULT_PER_MINUTE,
        "errors of a rule that become dead letters, of each worker; further ones are counted",
        unit="dead letters a minute",
        least=0,
    )


class OutputOptions(OptionGroup):
    """Where records and webhooks go."""

    heading: ClassVar = "Output"

    actions_topic: str = option("event-actions", "topic of Kafka actions that name none")
    action_topics: tuple[str, ...] = option(
        (),
        "topic, or pattern such as alerts-*, that Kafka actions may write, never one of the job itself; may be "
        "repeated; without it the topics that the rules of the launch name",
    )
    cloudevents_source: str | None = option(
        None, "ce_source of Kafka actions, a URI reference; without it event-trigger/JOB_NAME"
    )
    dead_letters_topic: str = option("event-dead-letters", "topic of dead letters")
    dead_letters_key: str | None = option(
        None,
        f"where workers find the keys that sign dead letters and redriven webhooks: {TOKEN_REFERENCES}; the first key "
        "signs, all are accepted",
        unit=REFERENCE,
    )
    dead_letters_file: Path | None = option(
        None, "for the bundled stream, dead letters as JSON Lines in this file, written anew", unit="path"
    )
    inspections_topic: str = option("user-inspections", "topic of inspected users")
    user_hash_key: str | None = option(
        None,
        f"where workers find the key of the hashes that stand for users in logs and audit records: {TOKEN_REFERENCES}; "
        "`user-hash` finds a user with it. Without it logs have hashes that nobody can find, and audit records SHA-256",
        unit=REFERENCE,
    )
    audit_topic: str = option(
        "event-audit", "topic of audit records: who was forgotten when, by hash; which rule set is live where"
    )
    decisions_topic: str | None = option(
        None, "topic of the decision log, keyed by user; without it and --decisions_file there is none"
    )
    decisions_file: Path | None = option(
        None, "on DirectRunner, the decision log as JSON Lines in this file, written anew", unit="path"
    )
    decision_sample: float = option(
        0.0, "of events and rules that did not fire, the share in the decision log", unit="0 to 1", least=0, most=1
    )
    actions_file: Path | None = option(
        None, "on DirectRunner, every action as JSON Lines in this file, written anew", unit="path"
    )
    verbose: bool = option(
        False, "for the bundled stream, also print DEBUG EVENT {json} for each debug action, as on Flink"
    )
    destinations: Path | None = option(
        None, "YAML file of webhooks' destinations; the bundled stream has stand-ins without it", unit="path"
    )
    destination_host: tuple[str, ...] = option(
        (), "host that webhooks may go to, *.example.com for all below; without it every public one; may be repeated"
    )
    allow_private_destinations: bool = option(
        False, "for development: webhooks may go to this machine and private networks, and over plain http"
    )
    webhook_ca_file: Path | None = option(
        None,
        "PEM file of the CAs that vouch for receivers instead of the public ones; an absolute path on every worker",
        unit="path",
    )
    deliveries_topic: str | None = option(
        None,
        "topic of the ledger of deliveries, a partition for each user shard: what it names is not sent again after a "
        "crash; without it webhooks since the last checkpoint are",
    )
    delivery_guarantee: Literal["AT_LEAST_ONCE", "EXACTLY_ONCE"] = option(
        "AT_LEAST_ONCE", "of Kafka actions on Flink; exactly once is visible at the next checkpoint"
    )
    transactional_id_prefix: str = option("event-trigger", "of exactly-once actions; unique per job")
    transaction_timeout_ms: int = option(
        900_000, "must exceed checkpoint interval plus restart, and fit the broker's maximum", unit="ms", least=1000
    )


class FlinkOptions(OptionGroup):
    """How the launcher submits the job, and how Flink runs it."""

    heading: ClassVar = "Flink"

    runner: Literal["DirectRunner", "FlinkRunner"] = option(
        "DirectRunner", "DirectRunner runs once over what is there now and ends"
    )

    flink_master: str | None = option(None, "HOST:PORT of Flink's REST endpoint; without it a local cluster is started")
    job_name: str = option("event-trigger", "name of the Flink job")
    parallelism: int = option(2, "subtasks of every step", unit="slots", least=1, most=32768)
    checkpointing_interval_ms: int = option(60_000, "time between checkpoints", unit="ms", least=100)
    savepoint_path: str | None = option(None, "savepoint or checkpoint to start from; `event-trigger resume` finds it")
    allow_non_restored_state: bool = option(
        False, "start although parts of the savepoint belong to no step any more, and drop them"
    )
    start_without_state: bool = option(
        False, "start anew although an ended job of this name has left state on the cluster"
    )
    checkpoint_dir_is_shared: bool = option(False, "all machines of the cluster share its file:// checkpoint folder")
    bundle_time_ms: int = option(6, "longest time of a Beam bundle", unit="ms", least=1, most=10_000)
    bundle_size: int = option(1000, "micro-batches that end a bundle", unit="batches", least=1)
    workers_per_task_manager: int = option(
        2, "Python workers of a TaskManager: its number of slots", unit="processes", least=1, most=64
    )
    worker_keep_ms: int = option(
        0, "how long workers wait for their job to come back after a failure", unit="ms", least=0, most=600_000
    )
    worker_command: str | None = option(
        None, "program that starts a Python worker on the TaskManagers; default: this environment's", unit="path"
    )
    detached: bool = option(False, "return as soon as Flink has taken the job")
    log_format: Literal["text", "json"] = option("text", "how the launcher tells what it does, on standard error")
    plan_file: Path | None = option(None, "write the Flink plan as JSON to this file, submit nothing", unit="path")
