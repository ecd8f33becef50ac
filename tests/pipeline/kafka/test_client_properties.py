"""Properties of Java's clients as librdkafka takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from pipeline.errors import OptionError
from pipeline.kafka import client_properties
from pipeline.kafka.client_properties import JAVA_PROPERTIES, cannot_log_in, for_java, for_librdkafka, unknown_property

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"


@pytest.fixture(autouse=True)
def _nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_properties, "_reported", set())


@pytest.mark.parametrize("value", ["0", "1000", "2147483647", "9223372036854775807"])
def test_no_number_of_java_s_keeps_a_client_from_starting(value: str) -> None:
    ends = (".ms", ".bytes", ".size", ".memory", "records", "seconds", "jitter", "retries", "connection")
    # Java, too, wants delivery.timeout.ms to be longer than linger.ms.
    names = [name for name in JAVA_PROPERTIES if name.endswith(ends) and name != "linger.ms"]
    config = for_librdkafka(dict.fromkeys(names, value))
    Consumer({**config, "group.id": "g"}).close()
    Producer(config)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"fetch.max.wait.ms": "7"}, {"fetch.wait.max.ms": "7"}),
        ({"fetch.max.wait.ms": "7", "fetch.wait.max.ms": "8"}, {"fetch.wait.max.ms": "8"}),
        ({"send.buffer.bytes": "9", "receive.buffer.bytes": "8"}, {"socket.send.buffer.bytes": "9",
                                                                   "socket.receive.buffer.bytes": "8"}),
        ({"ssl.endpoint.identification.algorithm": ""}, {"ssl.endpoint.identification.algorithm": "none"}),
        ({"ssl.truststore.type": "PEM", "ssl.truststore.location": "/ca.pem"}, {"ssl.ca.location": "/ca.pem"}),
        ({"sasl.jaas.config": f'{PLAIN} username="ann" password="p;=\\"w";'},
         {"sasl.username": "ann", "sasl.password": 'p;="w'}),
        ({"sasl.jaas.config": f"{SCRAM}\n  password='x y'\n username=ann;"},
         {"sasl.username": "ann", "sasl.password": "x y"}),
        ({"sasl.jaas.config": f'{PLAIN} username="ann" password="p";', "sasl.password": "other"},
         {"sasl.username": "ann", "sasl.password": "other"}),
        ({"partition.assignment.strategy": "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"}, {}),
        ({"session.timeout.ms": "400000", "group.instance.id": "x"}, {}),
        ({"client.dns.lookup": "use_all_dns_ips", "acks": "all"}, {"client.dns.lookup": "use_all_dns_ips",
                                                                   "acks": "all"}),
        ({"socket.keepalive.enable": "true"}, {"socket.keepalive.enable": "true"}),
    ],
)  # fmt: skip
def test_what_librdkafka_has_is_kept_or_translated(
    given: dict[str, str], expected: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert for_librdkafka(given) == expected
    assert capsys.readouterr().err == ""
    assert not cannot_log_in(given)


def test_what_it_has_not_is_named_once_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "default.api.timeout.ms": "7",
        "interceptor.classes": "com.acme.X",
        "com.acme.x": "y",
        "request.timeout.ms": "1800000",
        "fetch.max.bytes": "1000",
        "linger.ms": "3",
    }
    assert for_librdkafka(given) == {"linger.ms": "3"}
    assert for_librdkafka(given) == {"linger.ms": "3"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: Kafka clients outside Flink go without ")
    assert {name for name in given if name in line} == set(given) - {"linger.ms"}


def test_a_truststore_of_java_is_named_with_what_to_give_instead(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"ssl.truststore.location": "/x.jks", "ssl.truststore.password": "secret"}
    assert for_librdkafka(given) == {}
    shown = capsys.readouterr().err
    assert "ssl.truststore.location" in shown
    assert "give ssl.ca.location, too" in shown
    assert "secret" not in shown
    assert cannot_log_in(given)


def test_a_value_that_no_client_takes_stays() -> None:
    assert for_librdkafka({"security.protocol": "SASL_TYPO"}) == {"security.protocol": "SASL_TYPO"}


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        (["max.pol.records"], "max.pol.records"),
        (["linger.ms", "no.such"], "no.such"),
        (["error_cb"], "error_cb"),
        (["ssl.ca.location", "sasl.username", "sasl.jaas.config", "default.api.timeout.ms"], None),
        (["queued.min.messages", "metadata.broker.list"], None),
        (["partition.discovery.interval.ms"], None),
        (["interceptor.classes", "com.acme.x"], None),
        (["config.providers", "config.providers.file.class"], None),
    ],
)
def test_a_name_that_neither_client_has_is_found(names: list[str], unknown: str | None) -> None:
    found = unknown_property(names)
    assert (found and found[0]) == unknown


LOGIN = {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "ann"}


def test_java_s_clients_read_secrets_where_they_run() -> None:
    config = for_java({**LOGIN, "sasl.password": "env:P", "ssl.key.password": "file:/run/p"})
    assert config == {
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": f'{SCRAM} username="ann" password="${{secret:quoted-env:P}}";',
        "ssl.key.password": "${secret:file:/run/p}",
        "config.providers": "secret",
        "config.providers.secret.class": "eventtrigger.flink.SecretProvider",
    }
    assert for_java({"acks": "all", "client.id": "env:P"}) == {"acks": "all", "client.id": "env:P"}
    assert for_java({"ssl.key.password": "env:P", "config.providers": "mine"})["config.providers"] == "mine,secret"


def test_user_and_password_become_a_jaas_configuration_that_reads_back() -> None:
    config = for_java({**LOGIN, "sasl.password": 'a"b\\c;='})
    assert for_librdkafka(config) == {**LOGIN, "sasl.password": 'a"b\\c;='}


def test_librdkafka_s_clients_read_secrets_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("P", "s3cr3t")
    assert for_librdkafka({**LOGIN, "sasl.password": "env:P"}) == {**LOGIN, "sasl.password": "s3cr3t"}
    (tmp_path / "p").write_text("s3cr3t\n")
    assert for_librdkafka({"ssl.key.password": f"file:{tmp_path}/p"}) == {"ssl.key.password": "s3cr3t"}


@pytest.mark.parametrize(
    ("reference", "problem"), [("env:NONE", "no such environment variable"), ("env:E", "is empty")]
)
def test_a_secret_that_cannot_be_read_is_named(reference: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("E", "")
    with pytest.raises(OptionError, match=f"Kafka property 'sasl.password': {reference}: .*{problem}"):
        for_librdkafka({**LOGIN, "sasl.password": reference})
