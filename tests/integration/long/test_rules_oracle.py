"""The oracle of tests/rules_oracle on real Kafka and Flink: the job's actions through two kills of the TaskManager.

The wall clock and the stream's time are not the test's here. So all events are there before the job begins, none is
later than ``--allowed_lateness_seconds``, the hours in which rules hold end within the run, those in which they drop
are far away, and fields of a body that depend on the moment at which a sequence ends are not compared.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from confluent_kafka import Message, Producer

from runners.flink.local.broker import LocalKafka
from runners.flink.rest import FlinkRest
from tests.flink_cluster import FlinkCluster, running_since, wait_for_recovery
from tests.integration.jobs import PATIENT, Topics, reading, running
from tests.integration.user_api import serve_users
from tests.oracle import UNAVAILABLE
from tests.rules_oracle.events import Times, records, users
from tests.rules_oracle.language import Json
from tests.rules_oracle.model import OracleRule, Received, RulesOracle, User
from tests.rules_oracle.rules import documents, oracle_rules
from transforms.domain.rules.actions import action_id

pytestmark = [pytest.mark.stack, pytest.mark.timeout(3 * 3600)]

IN_TIME = Times(very_late_ms=0, repeated=5, without_time=0.0)
OF_THE_MOMENT = {"back_to_view": ("pages", "last")}
# The stream is at its end long after the last sequence's.
END_MS = 2**41


def hours_of_this_run(document: Json, holds_until: datetime) -> Json:
    """A rule whose quiet hours, if they hold, end at ``holds_until``; if they drop, they are half a day away."""
    quiet = document.get("quiet_hours")
    if quiet is None:
        return document
    end = holds_until + timedelta(hours=12 if "mode" in quiet else 0)
    begin = end - timedelta(hours=1 if "mode" in quiet else 23)
    hours = {"start": f"{begin:%H:%M}", "end": f"{end:%H:%M}"} | ({"mode": quiet["mode"]} if "mode" in quiet else {})
    changed = {**document, "quiet_hours": hours, "time_zone": {"profile_field": None, "default": "UTC"}}
    return changed | ({"recheck": "event.parameters.price < 200"} if "recheck" in document else {})


def without_hours(rule: OracleRule) -> OracleRule:
    """The rule as it is in this run, where what quiet hours hold goes out in the end."""
    return rule if rule.quiet is None else replace(rule, quiet=None, zone_field="none", zone_default="UTC")


def expected(rules: list[OracleRule], known: dict[str, User], received: list[Received]) -> Counter[str]:
    """The actions that must go out."""
    oracle = RulesOracle(rules, known)
    for record in received:
        oracle.event(record, record.record_ms or 0)
        oracle.stream_reaches(record.record_ms or 0, record.record_ms or 0)
    oracle.stream_reaches(END_MS, END_MS)
    versions = {rule.name: rule.version for rule in rules}
    rechecked = {rule.name for rule in rules if rule.recheck is not None}
    cheap = {(record.user_id, record.event["event_id"]): is_cheap(record.event) for record in received}
    return Counter(
        shown(
            action_id(action.user_id, action.event_id, action.rule, versions[action.rule], "kafka"),
            action.rule,
            action.body,
        )
        for action in oracle.actions
        if action.rule not in rechecked or cheap[action.user_id, action.event_id]
    )


def is_cheap(event: Json) -> bool:
    """What the recheck says when quiet hours end; an event without a price is an error of the rule."""
    price = event["parameters"].get("price")
    return price is not None and price < 200


def shown(identity: str, rule: str, body: Any) -> str:
    if {"event", "userProfile"} <= body.keys():
        body = {name: body[name] for name in ("event", "userProfile")}
    body = {name: value for name, value in body.items() if name not in OF_THE_MOMENT.get(rule, ())}
    return json.dumps([identity, rule, body], sort_keys=True)


def sent(messages: Iterable[Message]) -> Counter[str]:
    found: Counter[str] = Counter()
    for message in messages:
        headers = dict(message.headers())
        found[shown(headers["action-id"].decode(), headers["rule"].decode(), orjson.loads(message.value()))] += 1
    return found


def produce(kafka: LocalKafka, topic: str, received: list[Received]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 20, "acks": "all"})
    for number, record in enumerate(received):
        value, key = orjson.dumps(record.event), record.user_id.encode()
        producer.produce(topic, value, key, timestamp=record.record_ms or 0)
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0


def answers_of(known: dict[str, User]) -> dict[str, Any]:
    return {
        user_id: UNAVAILABLE if user.enrichment == "unavailable" else {"profile": user.profile}
        for user_id, user in known.items()
        if user.enrichment != "unknown"
    }


def test_job_does_what_the_docs_say_through_two_kills(
    kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count = request.config.getoption("oracle_events")
    known = users(max(25, count // 100), seed=26)
    received = list(records(count, [*known, "nobody_knows"], seed=26, times=IN_TIME))
    due = expected([without_hours(rule) for rule in oracle_rules()], known, received)
    topics = Topics(kafka)
    # A whole minute, and long enough away for a slow machine to handle all events before.
    holds_until = datetime.fromtimestamp((time.time() + 420 + count / 200) // 60 * 60, UTC)
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump_all([hours_of_this_run(document, holds_until) for document in documents()]))
    produce(kafka, topics.events, received)
    options = (
        *PATIENT,
        "--parallelism=1",
        "--state_ttl_seconds=86400",
        "--delivery_guarantee=EXACTLY_ONCE",
        "--checkpointing_interval_ms=1000",
    )
    with (
        FlinkCluster(task_managers=1, slots=1) as flink,
        serve_users(answers_of(known)) as api,
        reading(kafka, topics.actions) as actions,
        running(flink, topics, path, f"--user_api_url={api}", *options) as job_id,
    ):
        rest = FlinkRest(flink.rest_url)
        for share in (5, 2):
            actions.until(due.total() // share, 1800)
            since = running_since(rest, job_id)
            flink.kill_task_manager(0)
            flink.start_task_manager()
            wait_for_recovery(rest, job_id, since, 180)
        try:
            actions.until(due.total(), (holds_until.timestamp() - time.time()) + 600)
        finally:
            went_out = sent(actions.settle())
            too_much, missing = list((went_out - due).elements()), list((due - went_out).elements())
            print(f"\n{count} events of {len(known)} users: {went_out.total()} actions, {due.total()} expected")
            print("too much:", *too_much[:10], "missing:", *missing[:10], sep="\n")
        assert (too_much, missing) == ([], [])
