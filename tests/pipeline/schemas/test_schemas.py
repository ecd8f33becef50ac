"""The JSON Schemas are those that the code gives, take what it writes, and refuse what it would not."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest

from pipeline.cli.init import template
from pipeline.kafka.announcements import Announcement
from pipeline.schemas import SCHEMAS, schema_text
from tests.builders import NOW_MS, event, record
from tests.integration.jobs import ROOT
from tests.readme import schema_files
from tests.schemas import build
from transforms.domain.base.yaml_documents import read_documents
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.events.event import EventLimits, parse_event
from transforms.domain.rules.actions import enriched_event
from transforms.domain.rules.sets import Acknowledgement
from transforms.domain.shard.decisions import FIRED, KINDS, Decision
from transforms.domain.shard.step_result import Erasure
from transforms.domain.users.history import History, Row
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit

REMOVED = object()


def validator(name: str) -> Any:
    return jsonschema.Draft202012Validator(json.loads(schema_text(name)))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schemas_are_those_of_the_code(name: str) -> None:
    schema = build(name)
    jsonschema.Draft202012Validator.check_schema(json.loads(schema))
    assert json.loads(schema)["$id"] == f"urn:event-trigger:schema:{name}"
    assert [file for file in schema_files(name) if file.read_text("utf-8") != schema] == [], "run make readme"


LETTER = DeadLetter("too_large", "11 KB", "t", 0, 17, 5, b"u", b"{}").to_json()
LOST = LostAction("id", 3, "webhook", "crm", "u", "e", b"{}", 5, 2, 503)
LOST_LETTER = DeadLetter("undelivered", "503", "", -1, -1, 5, None, b"", rule="r", action=LOST).to_json()
DECISION = Decision(decision=FIRED, time=1, user_id="u", event_id="e", rule="r", version=3, action="crm").to_json()
ANNOUNCEMENT = Announcement("job", "rules", ("crm",), {"history_size": 5}, 5).to_json()
ERASURE = Erasure("u", True, 5, "control", record(event())).to_json()
KEYED_ERASURE = Erasure("u", True, 5, "control", record(event())).to_json("0" * 32)


def action() -> bytes:
    """The body of an action."""
    parsed = parse_event(record(event(event_id="e1", mood="good")), NOW_MS, EventLimits())
    history = History(5)
    history.add(Row(NOW_MS - 1, "e0", "session_start"))
    visit = Visit("v", NOW_MS - 5, 5, False)
    return enriched_event(parsed.fields, visit, UserState(0, "fetched", b'{"country":"US"}', history))


RECORDS = [
    ("action", action(), {"event": {"event_id": "e"}, "currentVisit": 3, "eventHistory": [{}], "userProfile": None}),
    ("dead-letter", LETTER, {"reason": "tired", "stage": "end", "value": None, "offset": "17", "cut": REMOVED}),
    ("dead-letter", LOST_LETTER, {"action": {"action_id": "id"}, "partition": -2, "timestamp": 1.5}),
    ("decision", DECISION, {"decision": "frred", "user_id": REMOVED, "version": "3", "time": None}),
    ("audit", Acknowledgement(3, 1, 16, 5).to_json(), {"audit": "rule", "shard": "1", "number": REMOVED}),
    ("audit", ANNOUNCEMENT, {"audit": "jobs", "job": 1, "destinations": "crm", "options": [], "time": REMOVED}),
    ("audit", ERASURE, {"audit": "rules", "user_sha256": "u", "found": 1, "topic": REMOVED}),
    ("audit", KEYED_ERASURE, {"user_hash": "u", "user_sha256": "0" * 64}),
]


@pytest.mark.parametrize(
    ("name", "record", "mutations"), RECORDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_record_fits_and_a_mutated_one_does_not(name: str, record: bytes, mutations: dict[str, Any]) -> None:
    check, document = validator(name), json.loads(record)
    check.validate(document)
    for field, value in mutations.items():
        mutated = copy.deepcopy(document)
        if value is REMOVED:
            del mutated[field]
        else:
            mutated[field] = value
        assert not check.is_valid(mutated), field


def test_every_decision_has_its_place() -> None:
    for kind in KINDS:
        validator("decision").validate({**json.loads(DECISION), "decision": kind})


CONFIG = {
    "user_shards": 8,
    "kafka_property": {"linger.ms": 5, "sasl.password": "env:P"},
    "user_api_token": "file:/t",
    "profiles": {"p": {"extends": "q", "rules": "r", "rules_topic": None}, "q": None},
}


@pytest.mark.parametrize(
    "mutation",
    [
        {"user_shard": 8},
        {"user_shards": "8"},
        {"user_shards": 99999},
        {"runner": "flink"},
        {"job_name": ""},
        {"kafka_property": ["a=b"]},
        {"kafka_property": {"sasl.password": "s3cr3t"}},
        {"user_api_token": "s3cr3t"},
        {"savepoint_path": "s"},
        {"profiles": {"p": {"profile": "q"}}},
        {"profiles": {"p": {"kafka_property": {"ssl.key.password": "s3cr3t"}}}},
        {"extends": 3},
    ],
    ids=str,
)
def test_a_configuration_fits_and_a_mutated_one_does_not(mutation: dict[str, Any]) -> None:
    check = validator("config")
    check.validate(CONFIG)
    (document,) = read_documents(template())
    check.validate(document.value)
    assert not check.is_valid(CONFIG | mutation)


def test_rules_and_destinations_of_the_examples_fit() -> None:
    rules = [*ROOT.glob("examples/rules/*.yaml"), *ROOT.glob("pipeline/embedded/rules/*.yaml")]
    assert rules
    for file in rules:
        for document in (read.value for read in read_documents(file.read_text("utf-8")) if "actions" in read.value):
            validator("rule").validate(document)
            assert not validator("rule").is_valid(document | {"cooldwn": "1h"})
            assert not validator("rule").is_valid({name: document[name] for name in document if name != "name"})
    destination = {"name": "crm", "url": "https://a", "secrets": ["env:KEY"]}
    check = validator("destination")
    check.validate({"destinations": [destination | {"timeout": "5s", "headers": {"x-key": {"secret": "env:K"}}}]})
    for mutation in ({"secrets": ["whsec_abc"]}, {"timeout": []}, {"rate": 0}, {"nam": "x"}, {"secrets": []}):
        assert not check.is_valid({"destinations": [destination | mutation]}), mutation
