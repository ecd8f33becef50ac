"""What the plan of a job holds of Kafka's secrets."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pipeline.launch import graph
from pipeline.launch.flink import secret_variables
from pipeline.launch.options import Settings
from transforms.domain.rules.sets import RuleSet
from transforms.domain.webhooks.destinations import Destination

SECURITY: dict[str, Any] = {
    "kafka_security": "SASL_SSL",
    "kafka_sasl_mechanism": "SCRAM-SHA-512",
    "kafka_user": "ann",
    "kafka_password": "env:KAFKA_PASSWORD",
    "kafka_ca_file": "/etc/ca.pem",
    "kafka_certificate_file": "/etc/cert.pem",
    "kafka_key": "env:KAFKA_KEY",
}


@pytest.mark.parametrize("runner", ["FlinkRunner", "DirectRunner"])
def test_a_plan_has_references_and_no_secret(runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "canary-password")
    monkeypatch.setenv("KAFKA_KEY", "canary-key")
    settings = Settings(runner=runner, bootstrap_servers="b:1", **SECURITY)
    steps = [
        graph._read_events(settings),
        graph._read_control(settings),
        graph._write_actions(settings),
        graph._handle(settings, RuleSet(0, ()), ()),
    ]
    for step in steps:
        plan = pickle.dumps(step)
        assert b"env:KAFKA_PASSWORD" in plan
        assert b"canary" not in plan


def test_the_step_of_workers_has_references_of_all_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("SIGNING", "HEADER", "CLIENT_ID", "CLIENT_SECRET", "API_TOKEN", "LETTERS", "HASHES")
    for name in names:
        monkeypatch.setenv(name, f"canary-{name}")
    destination = Destination.model_validate(
        {
            "name": "crm",
            "url": "https://crm.example.com/hook",
            "secrets": ["env:SIGNING"],
            "headers": {"X-Api-Key": {"secret": "env:HEADER"}},
            "oauth2": {
                "token_url": "https://crm.example.com/token",
                "client_id": {"secret": "env:CLIENT_ID"},
                "client_secret": "env:CLIENT_SECRET",
            },
        }
    )
    settings = Settings(
        runner="FlinkRunner",
        bootstrap_servers="b:1",
        user_api_url="https://users.example.com",
        user_api_token="env:API_TOKEN",
        dead_letters_key="env:LETTERS",
        user_hash_key="env:HASHES",
        **SECURITY,
    )
    plan = pickle.dumps(graph._handle(settings, RuleSet(0, ()), (destination,)))
    assert [name for name in names if f"env:{name}".encode() not in plan] == []
    assert b"canary" not in plan
    assert secret_variables(settings, (destination,)) == {*names, "KAFKA_PASSWORD", "KAFKA_KEY"}
