"""One description of how to reach Kafka, as Java's clients and librdkafka take it."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import OptionError
from pipeline.kafka.client_properties import for_java, for_librdkafka
from pipeline.kafka.security import KafkaSecurity, advice_for, msk_region
from pipeline.launch.options import parse
from runners.flink.redaction import without_secrets

FLINK = ["--runner=FlinkRunner", "--rules=rules", "--bootstrap_servers=b:1"]
LOGIN = {"kafka_user": "ann", "kafka_password": "env:P"}
JAAS_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
JAAS_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"
QUOTED = 'username="ann" password="${secret:quoted-env:P}";'
MECHANISMS = (None, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "AWS_MSK_IAM")
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def described(protocol: str, mechanism: str | None, **more: str) -> KafkaSecurity:
    login = LOGIN if mechanism not in (None, "AWS_MSK_IAM") else {}
    return KafkaSecurity.of({"kafka_security": protocol, "kafka_sasl_mechanism": mechanism, **login, **more})


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_user_and_password_log_in_on_both_sides(protocol: str, mechanism: str) -> None:
    security = described(protocol, mechanism)
    assert security.for_java() == {
        "security.protocol": protocol,
        "sasl.mechanism": mechanism,
        "sasl.jaas.config": f"{JAAS_PLAIN if mechanism == 'PLAIN' else JAAS_SCRAM} {QUOTED}",
    }
    assert security.for_librdkafka("b:1") == {
        "security.protocol": protocol,
        "sasl.mechanism": mechanism,
        "sasl.username": "ann",
        "sasl.password": "env:P",
    }
    assert security.is_clear_text == ((protocol, mechanism) == ("SASL_PLAINTEXT", "PLAIN"))


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_certificates_reach_both_sides(protocol: str) -> None:
    security = described(
        protocol,
        "PLAIN" if protocol == "SASL_SSL" else None,
        kafka_ca_file="/etc/ca.pem",
        kafka_certificate_file="/etc/client.pem",
        kafka_key="file:/run/key.pem",
        kafka_key_passphrase="env:PASSPHRASE",
    )
    java = security.for_java()
    assert {name: value for name, value in java.items() if name.startswith("ssl.")} == {
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": "/etc/ca.pem",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": "${secret:certificate-file:/etc/client.pem}",
        "ssl.keystore.key": "${secret:decrypted:file:/run/key.pem\nenv:PASSPHRASE}",
    }
    librdkafka = security.for_librdkafka("b:1")
    assert {name: value for name, value in librdkafka.items() if name.startswith("ssl.")} == {
        "ssl.ca.location": "/etc/ca.pem",
        "ssl.certificate.location": "/etc/client.pem",
        "ssl.key.pem": "file:/run/key.pem",
        "ssl.key.password": "env:PASSPHRASE",
    }


def test_iam_of_amazon_is_a_token_for_librdkafka_and_a_class_for_java() -> None:
    security = described("SASL_SSL", "AWS_MSK_IAM")
    assert security.for_java() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "AWS_MSK_IAM",
        "sasl.jaas.config": "software.amazon.msk.auth.iam.IAMLoginModule required;",
        "sasl.client.callback.handler.class": "software.amazon.msk.auth.iam.IAMClientCallbackHandler",
    }
    assert security.for_librdkafka("b-1.x.y.c2.kafka.eu-central-1.amazonaws.com:9098") == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.config": "aws-msk-iam:eu-central-1",
    }


@pytest.mark.parametrize(
    ("brokers", "region"),
    [
        ("b-1-public.n.abc.c2.kafka.us-gov-west-1.amazonaws.com:9198", "us-gov-west-1"),
        ("boot-x.c1.kafka-serverless.us-east-1.amazonaws.com:9098", "us-east-1"),
        ("b-1.n.abc.c2.kafka.cn-north-1.amazonaws.com.cn:9098,b-2:1", "cn-north-1"),
        ("broker-1:9098", ""),
    ],
)
def test_the_region_is_in_the_name_of_amazon_s_brokers(brokers: str, region: str) -> None:
    assert msk_region(brokers) == region


def test_without_security_clients_get_no_property() -> None:
    assert KafkaSecurity().for_java() == {}
    assert KafkaSecurity().for_librdkafka("b:1") == {}
    assert (
        for_java({"linger.ms": "1"}, KafkaSecurity())
        == for_librdkafka({"linger.ms": "1"}, KafkaSecurity())
        == {"linger.ms": "1"}
    )


@pytest.mark.parametrize("user", ['a"b\\c;=', "ann", "a b"])
def test_a_user_s_name_stands_in_quotes_for_java(user: str) -> None:
    jaas = described("SASL_SSL", "PLAIN", kafka_user=user).for_java()["sasl.jaas.config"]
    assert 'username="' + user.replace("\\", "\\\\").replace('"', '\\"') + '"' in jaas


def test_java_s_clients_are_told_who_reads_secrets() -> None:
    config = for_java({"acks": "all"}, described("SASL_SSL", "PLAIN"))
    assert config["config.providers"] == "secret"
    assert config["config.providers.secret.class"] == "eventtrigger.flink.SecretProvider"


TLS: dict[str, Any] = {
    "kafka_ca_file": "/ca.pem",
    "kafka_certificate_file": "/c.pem",
    "kafka_key": "env:K",
    "kafka_key_passphrase": "env:S",
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_protocol_takes_its_mechanisms_and_no_others(protocol: str, mechanism: str | None) -> None:
    allowed = {
        "PLAINTEXT": [None],
        "SSL": [None],
        "SASL_PLAINTEXT": MECHANISMS[1:4],
        "SASL_SSL": MECHANISMS[1:],
    }[protocol]
    if mechanism in allowed:
        described(protocol, mechanism)
        return
    with pytest.raises(OptionError, match=r"--kafka_s.*, (allowed|which)") as error:
        described(protocol, mechanism)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kafka_security": "SASL_SSL", "kafka_sasl_mechanism": "PLAIN", "kafka_password": "env:P"},
         "--kafka_user is missing, which --kafka_sasl_mechanism=PLAIN needs"),
        ({"kafka_security": "SASL_SSL", "kafka_sasl_mechanism": "PLAIN", "kafka_user": "a"},
         "--kafka_password is missing, which"),
        ({"kafka_user": "a"}, "--kafka_user is of no use without --kafka_sasl_mechanism=PLAIN, SCRAM"),
        ({"kafka_security": "SSL", "kafka_password": "env:P"}, "--kafka_password is of no use without"),
        ({"kafka_security": "SASL_SSL", "kafka_sasl_mechanism": "AWS_MSK_IAM", "kafka_user": "a"},
         "--kafka_user is of no use"),
        *[({name: value}, f"--{name} is of no use without --kafka_security=SSL or SASL_SSL")
          for name, value in TLS.items()],
        ({"kafka_security": "SSL", "kafka_key": "env:K"}, "belong together"),
        ({"kafka_security": "SSL", "kafka_certificate_file": "/c.pem"}, "belong together"),
        ({"kafka_security": "SSL", "kafka_key_passphrase": "env:S"}, "is of no use without --kafka_key"),
        ({"kafka_security": "SSL", "kafka_ca_file": "ca.pem"}, "'ca.pem', allowed: an absolute path"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_one_clear_error(given: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as error:
        KafkaSecurity.of(given)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["kafka_password", "kafka_key", "kafka_key_passphrase"])
@pytest.mark.parametrize("secret", ["s3cr3t", "env:", "-----BEGIN PRIVATE KEY-----", "file:relative", "env:s3cr3t!"])
def test_a_secret_itself_is_refused_and_not_shown(name: str, secret: str) -> None:
    with pytest.raises(OptionError) as error:
        parse([*FLINK, "--kafka_security=SASL_SSL", "--kafka_sasl_mechanism=PLAIN", "--kafka_user=a",
               f"--{name}={secret}"])  # fmt: skip
    assert f"--{name} is no reference" in str(error.value)
    assert secret not in str(error.value).partition("allowed")[0]
    assert "s3cr3t" not in str(error.value)


def test_java_s_clients_cannot_ask_aws_for_secrets() -> None:
    login = ["--kafka_security=SASL_SSL", "--kafka_sasl_mechanism=PLAIN", "--kafka_user=a",
             "--kafka_password=aws-secret:kafka"]  # fmt: skip
    with pytest.raises(
        OptionError, match="--kafka_password is 'aws-secret:kafka', allowed on FlinkRunner: env:NAME or"
    ):
        parse([*FLINK, *login])
    assert parse(["--bootstrap_servers=b:1", "--rules=r", *login]).kafka_password == "aws-secret:kafka"


OWNED = {
    "security.protocol=SASL_SSL": "--kafka_security",
    "sasl.mechanism=PLAIN": "--kafka_sasl_mechanism",
    "sasl.mechanisms=PLAIN": "--kafka_sasl_mechanism",
    "sasl.username=s3cr3t": "--kafka_user",
    "sasl.password=s3cr3t": "--kafka_password",
    "sasl.password=env:P": "--kafka_password",
    'sasl.jaas.config=X required password="s3cr3t";': "--kafka_password",
    "sasl.client.callback.handler.class=software.amazon.msk.X": "--kafka_sasl_mechanism",
    "ssl.truststore.location=/t.jks": "--kafka_ca_file",
    "ssl.truststore.password=s3cr3t": "--kafka_ca_file",
    "ssl.truststore.certificates=s3cr3t": "--kafka_ca_file",
    "ssl.ca.location=/ca.pem": "--kafka_ca_file",
    "ssl.ca.pem=s3cr3t": "--kafka_ca_file",
    "ssl.keystore.location=/k.jks": "--kafka_certificate_file",
    "ssl.certificate.location=/c.pem": "--kafka_certificate_file",
    "ssl.keystore.key=s3cr3t": "--kafka_key",
    "ssl.key.location=/k.pem": "--kafka_key",
    "ssl.key.pem=s3cr3t": "--kafka_key",
    "ssl.key.password=s3cr3t": "--kafka_key_passphrase",
    "ssl.keystore.password=s3cr3t": "--kafka_key_passphrase",
    "sasl.oauthbearer.client.secret=s3cr3t": "whose value is a secret",
    "interceptor.classes=a.B:password=s3cr3t": "whose value is a secret",
    "sasl.oauthbearer.token.endpoint.url=https://me:s3cr3t@idp/token": "whose value is a secret",
    "basic.auth.user.info=me:s3cr3t": "whose value is a secret",
}


@pytest.mark.parametrize("flag", ["kafka_property", "consumer_property", "producer_property"])
@pytest.mark.parametrize("pair", OWNED)
def test_properties_neither_hold_secrets_nor_what_options_say(flag: str, pair: str) -> None:
    with pytest.raises(OptionError) as error:
        parse([*FLINK, f"--{flag}={pair}"])
    message = str(error.value)
    assert message.startswith(f"--{flag} sets {pair.partition('=')[0]!r}")
    assert OWNED[pair] in message
    assert "s3cr3t" not in message


def test_a_pair_that_may_be_a_secret_is_not_shown() -> None:
    with pytest.raises(OptionError, match="--kafka_property is no pair, allowed: NAME=VALUE"):
        parse([*FLINK, "--kafka_property=sasl.password:s3cr3t"])


@pytest.mark.parametrize(
    ("problem", "option"),
    [
        ("sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed", "--kafka_password"),
        ("SSL handshake failed: ... certificate verify failed: IP address mismatch", "--bootstrap_servers"),
        ("SSL handshake failed: ... certificate verify failed: self-signed", "--kafka_ca_file"),
        ("Topic authorization failed", None),
        ("Connection refused", None),
        ("sasl_ssl://127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused", None),
        ("sasl_plaintext://b:1/bootstrap: Failed to resolve 'b:1': Name or service not known", None),
    ],
)
def test_advice_names_the_option(problem: str, option: str | None) -> None:
    advice = advice_for(problem)
    assert advice is None if option is None else option in (advice or "")


def test_advice_survives_the_hiding_of_secrets() -> None:
    for problem in (
        "pkcs12 cipherfinal error: maybe wrong password",
        "private key",
        "ssl.ca",
        "sasl",
        "oauthbearer token",
    ):
        line = f"{problem} -> {advice_for(problem)}"
        assert without_secrets(line) == line
