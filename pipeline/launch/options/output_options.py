"""Options of the group "Output": actions, dead letters, logs and webhooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.launch.options.fields import AT_LEAST_ONCE, EXACTLY_ONCE, output_option


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where records and webhooks go."""

    actions_topic: str = output_option("event-actions", "topic of Kafka actions that name none")
    cloudevents_source: str | None = output_option(
        None, "ce_source of Kafka actions, a URI reference; without it event-trigger/JOB_NAME"
    )
    dead_letters_topic: str = output_option("event-dead-letters", "topic of dead letters")
    dead_letters_file: Path | None = output_option(
        None, "for the bundled stream, dead letters as JSON Lines in this file, written anew", unit="path"
    )
    inspections_topic: str = output_option("user-inspections", "topic of inspected users")
    audit_topic: str = output_option(
        "event-audit", "topic of audit records: who was forgotten when, by hash; which rule set is live where"
    )
    decisions_topic: str | None = output_option(
        None, "topic of the decision log, keyed by user; without it and --decisions_file there is none"
    )
    decisions_file: Path | None = output_option(
        None, "on DirectRunner, the decision log as JSON Lines in this file, written anew", unit="path"
    )
    decision_sample: float = output_option(
        0.0,
        "of events and rules that did not fire, the share in the decision log",
        unit="0 to 1",
        least=0,
        most=1,
    )
    actions_file: Path | None = output_option(
        None, "on DirectRunner, every action as JSON Lines in this file, written anew", unit="path"
    )
    destinations: Path | None = output_option(None, "YAML file of webhooks' destinations", unit="path")
    destination_host: tuple[str, ...] = output_option(
        (),
        "host that webhooks may go to, *.example.com for all below; without it every public one; may be repeated",
    )
    allow_private_destinations: bool = output_option(
        False, "for development: webhooks may go to this machine and private networks, and over plain http"
    )
    webhook_ca_file: Path | None = output_option(
        None,
        "PEM file of the CAs that vouch for receivers instead of the public ones; an absolute path on every worker",
        unit="path",
    )
    delivery_guarantee: str = output_option(
        AT_LEAST_ONCE,
        "of Kafka actions on Flink; exactly once is visible at the next checkpoint",
        choices=(AT_LEAST_ONCE, EXACTLY_ONCE),
    )
    transactional_id_prefix: str = output_option("event-trigger", "of exactly-once actions; unique per job")
    transaction_timeout_ms: int = output_option(
        900_000,
        "must exceed checkpoint interval plus restart, and fit the broker's maximum",
        unit="ms",
        least=1000,
    )
    producer_property: tuple[str, ...] = output_option((), "NAME=VALUE for Kafka producers; may be repeated")
