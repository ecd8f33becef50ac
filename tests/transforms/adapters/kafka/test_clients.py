"""Secrets of librdkafka's clients are read when a client is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from transforms.adapters.kafka import clients
from transforms.adapters.kafka.clients import connectable, is_secret_property, reasons_since
from transforms.domain.base.secret_references import SecretError

CONFIG = {"bootstrap.servers": "b:1", "sasl.username": "ann", "sasl.password": "env:P", "client.id": "env:P"}


def without_callbacks(config: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in connectable(config).items() if not name.endswith("_cb")}


def test_secrets_are_read_and_other_properties_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("P", "s3cr3t")
    (tmp_path / "key").write_text("-----BEGIN PRIVATE KEY-----\n")
    config = {**CONFIG, "ssl.key.pem": f"file:{tmp_path}/key"}
    assert without_callbacks(config) == {
        **CONFIG,
        "sasl.password": "s3cr3t",
        "ssl.key.pem": "-----BEGIN PRIVATE KEY-----",
    }


def test_a_changed_secret_counts_for_the_next_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for secret in ("first", "second"):
        monkeypatch.setenv("P", secret)
        assert connectable(CONFIG)["sasl.password"] == secret


@pytest.mark.parametrize(
    ("name", "reference", "message"),
    [
        ("sasl.password", "env:NONE", "--kafka_password is env:NONE: no such environment variable"),
        ("sasl.password", "env:EMPTY", "--kafka_password is env:EMPTY: is empty"),
        ("ssl.key.pem", "file:/no/such", "--kafka_key is file:/no/such: No such file or directory"),
        ("ssl.key.password", "env:NONE", "--kafka_key_passphrase is env:NONE"),
        ("sasl.username", "env:NONE", "--kafka_user is env:NONE"),
        ("x.password", "env:NONE", "Kafka property 'x.password' is env:NONE"),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_with_its_option(
    name: str, reference: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", " \n")
    with pytest.raises(SecretError) as error:
        connectable({name: reference})
    assert str(error.value).startswith(message)


def test_only_clients_of_msk_have_a_callback_for_tokens() -> None:
    assert "oauth_cb" not in connectable({"bootstrap.servers": "b:1"})
    assert "oauth_cb" in connectable({"sasl.oauthbearer.config": "aws-msk-iam:eu-central-1"})


def test_reasons_are_those_of_the_connection_since_the_start() -> None:
    clients._remember(KafkaError(KafkaError._SSL, "before"))
    with reasons_since() as reasons:
        clients._remember(KafkaError(KafkaError._AUTHENTICATION, "no such\nuser"))
        clients._remember(KafkaError(KafkaError._PARTITION_EOF, "no reason"))
    assert reasons == ["no such user"]


@pytest.mark.parametrize(
    "name", ["sasl.password", "ssl.key.pem", "basic.auth.user.info", "x.api.key", "ssl.keystore.key"]
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_property(name)


@pytest.mark.parametrize("name", ["ssl.key.location", "key.serializer", "client.id", "sasl.username"])
def test_names_of_others_are_none(name: str) -> None:
    assert not is_secret_property(name)
