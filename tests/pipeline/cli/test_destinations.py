"""``event-trigger destinations`` on a real broker."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer

from pipeline.cli.main import main
from runners.flink.local.broker import LocalKafka
from tests.integration.jobs import reading
from transforms.domain.webhooks.delivery_queue import is_switch, switch_record

pytestmark = pytest.mark.stack

START_MS = 1_704_103_200_000  # 10:00:00 UTC, 2024


class Destinations:
    """A control topic of its own and the commands on it."""

    def __init__(self, kafka: LocalKafka, folder: Path) -> None:
        self.kafka = kafka
        self.topic = f"control-{uuid.uuid4().hex[:8]}"
        self.file = folder / "destinations.yaml"
        kafka.create_topic(self.topic, 1)

    def write(self, *values: bytes | None) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for number, value in enumerate(values):
            producer.produce(self.topic, value, b"k", timestamp=START_MS + 1000 * number)
        assert producer.flush(30) == 0

    def names(self, *names: str) -> str:
        listed = [{"name": name, "url": "http://127.0.0.1:8080/x", "secrets": ["env:SECRET"]} for name in names]
        self.file.write_text(json.dumps({"destinations": listed}))
        return f"--destinations={self.file}"

    def run(self, *arguments: str) -> int:
        where = [f"--control_topic={self.topic}", f"--bootstrap_servers={self.kafka.bootstrap_servers}"]
        return main(["destinations", *arguments, *where])


@pytest.fixture
def destinations(kafka: LocalKafka, tmp_path: Path) -> Destinations:
    return Destinations(kafka, tmp_path)


def test_a_switch_is_the_control_record_of_its_name(
    destinations: Destinations, capsys: pytest.CaptureFixture[str]
) -> None:
    assert destinations.run("disable", "crm") == 0
    assert destinations.run("enable", "crm", destinations.names("ads", "crm")) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("crm is disabled from now on: ")
    with reading(destinations.kafka, destinations.topic) as reader:
        records = [(message.key(), orjson.loads(message.value())) for message in reader.until(2, 10)]
    assert records == [
        (b"crm", {"destination": "crm", "enabled": False}),
        (b"crm", {"destination": "crm", "enabled": True}),
    ]
    assert all(is_switch(value) for _, value in records)


def test_the_list_says_what_is_disabled_and_since_when(
    destinations: Destinations, capsys: pytest.CaptureFixture[str]
) -> None:
    assert destinations.run("list") == 0
    assert capsys.readouterr().out == ""
    destinations.write(
        switch_record("crm", False),
        switch_record("old", False),
        b"not JSON",
        b'{"forget": "u"}',
        b'{"destination": "crm", "enabled": "false"}',
        None,
        switch_record("old", True),
        switch_record("old", False),
        switch_record("crm", False),
        switch_record("back", False),
        switch_record("back", True),
    )
    assert destinations.run("list", destinations.names("ads", "crm", "back")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ads   enabled ",
        "crm   disabled  since 2024-01-01T10:00:00Z",
        "back  enabled   since 2024-01-01T10:00:10Z",
        "old   disabled  since 2024-01-01T10:00:07Z  not in the file",
    ]
    assert destinations.run("list", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["topic"] == destinations.topic
    assert shown["destinations"] == [
        {"name": "back", "enabled": True, "since": START_MS + 10_000, "in_file": None},
        {"name": "crm", "enabled": False, "since": START_MS, "in_file": None},
        {"name": "old", "enabled": False, "since": START_MS + 7000, "in_file": None},
    ]


def test_what_cannot_be_is_told_and_nothing_written(
    destinations: Destinations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        ("disable", "crn", destinations.names("ads", "crm")): "destination is 'crn', allowed: ads, crm",
        ("disable", "no name"): "destination is 'no name', allowed: 1 to 64 of a-z, 0-9, _ and -",
        ("enable", "crm", "--kafka_property=x"): "--kafka_property is 'x', allowed: NAME=VALUE",
        ("list", f"--destinations={tmp_path / 'nowhere'}"): str(tmp_path / "nowhere"),
    }
    for arguments, message in wrong.items():
        assert destinations.run(*arguments) == 2
        assert f"error: {message}" in capsys.readouterr().err
    with reading(destinations.kafka, destinations.topic) as reader:
        assert reader.settle(0.5) == []
    destinations.topic = "nowhere"
    for arguments in (("list",), ("enable", "crm")):
        assert destinations.run(*arguments) == 2
        assert "error: control topic 'nowhere' does not exist" in capsys.readouterr().err
