"""What the plan of a job holds of Kafka's secrets."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pipeline.launch import graph
from pipeline.launch.options import Settings
from transforms.domain.rules.sets import RuleSet

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
