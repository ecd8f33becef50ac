"""Commands and clients outside Flink on a broker that asks who they are."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from pipeline.cli.main import main
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.cluster_settings import topic_partitions
from pipeline.launch.options import parse
from tests.secure_kafka import PASSPHRASE, PASSWORD, USER, SecureKafka
from transforms.adapters.kafka.clients import connectable

pytestmark = pytest.mark.stack

RULE = "name: offer\nversion: 1\nfilter: event.triggerable\nactions: [{type: debug}]\n"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with SecureKafka(tmp_path_factory.mktemp("certificates")) as broker:
        broker.create_topic("events", 1)
        yield broker


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    monkeypatch.setenv("PASSPHRASE", PASSPHRASE)


def ways(secure: SecureKafka) -> dict[str, list[str]]:
    return {
        "SCRAM-SHA-512": secure.scram("env:KAFKA_PASSWORD"),
        "SCRAM-SHA-256": secure.scram("env:KAFKA_PASSWORD", "SCRAM-SHA-256"),
        "PLAIN": secure.scram("env:KAFKA_PASSWORD", "PLAIN"),
        "mutual TLS": secure.mutual(),
        "encrypted key": secure.mutual(passphrase="env:PASSPHRASE"),
        "without TLS": [
            f"--bootstrap_servers={secure.sasl_plaintext}",
            "--kafka_security=SASL_PLAINTEXT",
            "--kafka_sasl_mechanism=SCRAM-SHA-256",
            f"--kafka_user={USER}",
            "--kafka_password=env:KAFKA_PASSWORD",
        ],
    }


@pytest.mark.parametrize(
    "way", ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "mutual TLS", "encrypted key", "without TLS"]
)
def test_each_way_reaches_the_broker(secure: SecureKafka, way: str) -> None:
    settings = parse(ways(secure)[way], rules_required=False)
    topics = topic_partitions(for_librdkafka(settings.client_config(), settings.kafka_access()))
    assert topics["events"] == 1


@pytest.mark.parametrize("way", ["SCRAM-SHA-512", "mutual TLS"])
def test_rules_are_published_and_shown(
    secure: SecureKafka, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "offer.yaml").write_text(RULE)
    topic = f"--rules_topic=rules-{way.replace(' ', '-')}"
    options = [topic, *ways(secure)[way]]
    assert main(["rules", "publish", str(tmp_path), "--backtest_events=0", *options]) == 0
    assert main(["rules", "status", "--audit_topic=events", *options]) == 0
    shown = capsys.readouterr()
    assert "set 1" in shown.out
    assert PASSWORD not in shown.out + shown.err


def test_a_token_of_aws_reaches_every_kind_of_client(secure: SecureKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker knows no token of AWS; it takes one that nobody signed, so the way of the token is shown."""

    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    def token(region: str) -> tuple[str, int]:
        assert region == "eu-west-3"
        now = int(time.time())
        return f"{part({'alg': 'none'})}.{part({'sub': 'ann', 'iat': now, 'exp': now + 900})}.", (now + 900) * 1000

    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider

    monkeypatch.setattr(MSKAuthTokenProvider, "generate_auth_token", token)
    settings = parse(
        ["--bootstrap_servers=b-1.x.kafka.eu-west-3.amazonaws.com:9098", "--kafka_security=SASL_SSL",
         "--kafka_sasl_mechanism=AWS_MSK_IAM", f"--kafka_ca_file={secure.authority.ca_file}"],
        rules_required=False,
    )  # fmt: skip
    config = for_librdkafka(settings.client_config(), settings.kafka_access()) | {"bootstrap.servers": secure.sasl_ssl}
    assert "events" in AdminClient(connectable(config)).list_topics(timeout=20).topics
    producer = Producer(connectable(config))
    producer.produce("events", b"x")
    assert producer.flush(20) == 0
    consumer = Consumer(connectable({**config, "group.id": "g"}))
    assert "events" in consumer.list_topics(timeout=20).topics
    consumer.close()
