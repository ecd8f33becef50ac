"""Secrets of librdkafka's clients are read when a client is made."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from tests.waiting import eventually
from transforms.adapters.kafka import clients
from transforms.adapters.kafka.clients import connectable, is_secret_property, reasons_since
from transforms.domain.base.secret_references import SecretError

CONFIG = {"bootstrap.servers": "b:1", "sasl.username": "ann", "sasl.password": "env:P", "client.id": "env:P"}

KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"


def without_callbacks(config: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in connectable(config).items() if not name.endswith("_cb")}


def test_secrets_are_read_and_other_properties_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("P", "s3cr3t")
    (tmp_path / "key").write_text(f"{KEY}\n")
    config = {**CONFIG, "ssl.key.pem": f"file:{tmp_path}/key"}
    assert without_callbacks(config) == {
        **CONFIG,
        "sasl.password": "s3cr3t",
        "ssl.key.pem": KEY,
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


@pytest.mark.parametrize("secret", ["s3cr\r\nt", "s3cr\nt", "s3cr\0t", "s3cr\tt", "s3cr\x7ft"])
@pytest.mark.parametrize("name", ["sasl.password", "sasl.username", "ssl.key.password"])
def test_a_password_is_one_line_of_printable_characters(name: str, secret: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(secret.encode())
    with pytest.raises(SecretError, match="has line breaks or other control characters, allowed: one line") as error:
        connectable({name: f"file:{tmp_path}/secret"})
    assert "s3cr" not in str(error.value)


@pytest.mark.parametrize("text", ["s3cr3t", KEY[:30], KEY[:50], KEY.replace("PRIVATE KEY", "CERTIFICATE")])
def test_a_key_is_whole_and_in_pem(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(SecretError, match=r"--kafka_key is file:.*: has no whole private key, allowed: PKCS #8 in PEM"):
        connectable({"ssl.key.pem": f"file:{tmp_path}/key"})


@pytest.mark.parametrize(("name", "option"), [("ssl.ca.location", "ca"), ("ssl.certificate.location", "certificate")])
def test_a_file_of_certificates_is_named_when_it_is_none(name: str, option: str, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(KEY)
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "large.pem").write_text(" " * (1024 * 1024 + 1))
    (tmp_path / "ca.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\r\nMIIE\r\n-----END CERTIFICATE-----\r\n")
    wrong = {
        "none.pem": "No such file",
        "": "Is a directory",
        "/dev/zero": "no regular file",
        "large.pem": "1048577 bytes, allowed are 1048576",
        "key.pem": "no certificate in it",
        "empty.pem": "no cert",
    }
    for file, problem in wrong.items():
        with pytest.raises(SecretError) as error:
            connectable({name: str(tmp_path / file)})
        assert f"--kafka_{option}_file is '{tmp_path / file}': {problem}" in str(error.value)
    assert connectable({name: str(tmp_path / "ca.pem")})[name] == str(tmp_path / "ca.pem")


MSK = {"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.config": "aws-msk-iam:eu-west-3"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine without credentials of AWS and without a region."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_token_of_aws_is_signed_for_the_region(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    aws.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    assert "oauth_cb" not in connectable({"bootstrap.servers": "b:1"})
    token, ends_s = connectable(MSK)["oauth_cb"]("")
    url = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    assert url.startswith("https://kafka.eu-west-3.amazonaws.com/?Action=kafka-cluster%3AConnect")
    assert "s3cr3t" not in url
    assert 0 < ends_s - time.time() <= 900


def test_without_credentials_or_region_no_client_is_made(aws: pytest.MonkeyPatch) -> None:
    with pytest.raises(SecretError, match="AWS_MSK_IAM, but this machine has no credentials of AWS"):
        connectable(MSK)
    with pytest.raises(SecretError, match="the region is neither in the brokers' names nor in AWS_REGION"):
        connectable({**MSK, "sasl.oauthbearer.config": "aws-msk-iam:"})


def test_credentials_that_are_gone_later_leave_the_former_token_in_use(
    aws: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    aws.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    aws.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    tokens = connectable(MSK)["oauth_cb"]
    first, _ = tokens("")
    aws.delenv("AWS_ACCESS_KEY_ID")
    token, ends_s = tokens("")
    assert token == first
    assert ends_s - time.time() <= 60
    assert "the former token stays in use" in caplog.text


def test_clients_of_every_kind_ask_for_the_token(aws: pytest.MonkeyPatch) -> None:
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider

    aws.setattr(
        MSKAuthTokenProvider, "generate_auth_token", lambda _: ("some.signed.token", (time.time() + 900) * 1000)
    )
    for kind in (AdminClient, Producer, Consumer):
        config = connectable({**MSK, "bootstrap.servers": "", "security.protocol": "SASL_SSL", "group.id": "g"})
        asked: list[str] = []
        tokens = config["oauth_cb"]
        config["oauth_cb"] = lambda given, asked=asked, tokens=tokens: asked.append(given) or tokens(given)
        client = kind({name: value for name, value in config.items() if kind is Consumer or name != "group.id"})
        eventually(lambda asked=asked, client=client: client.poll(0) or asked, f"{kind} asks for a token")


def test_reasons_are_those_of_the_connection_since_the_start() -> None:
    clients._remember(KafkaError(KafkaError._SSL, "before"))
    with reasons_since() as reasons:
        clients._remember(KafkaError(KafkaError._AUTHENTICATION, "no such user"))
        clients._remember(KafkaError(KafkaError._AUTHENTICATION, "no such\nuser (after 3ms in state AUTH_REQ)"))
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
