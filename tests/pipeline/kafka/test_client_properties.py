"""Properties of Java's clients as librdkafka takes them."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, Producer

from pipeline.kafka import client_properties
from pipeline.kafka.client_properties import JAVA_PROPERTIES, cannot_log_in, for_java, for_librdkafka, unknown_property
from pipeline.kafka.security import KafkaSecurity


@pytest.fixture(autouse=True)
def _nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_properties, "_reported", set())


@pytest.mark.parametrize("value", ["0", "1000", "2147483647", "9223372036854775807"])
def test_no_number_of_java_s_keeps_a_client_from_starting(value: str) -> None:
    ends = (".ms", ".bytes", ".size", ".memory", "records", "seconds", "jitter", "retries", "connection")
    # Java, too, wants delivery.timeout.ms to be longer than linger.ms.
    names = [name for name in JAVA_PROPERTIES if name.endswith(ends) and name != "linger.ms"]
    config = for_librdkafka(dict.fromkeys(names, value), KafkaSecurity())
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
    assert for_librdkafka(given, KafkaSecurity()) == expected
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
    assert for_librdkafka(given, KafkaSecurity()) == {"linger.ms": "3"}
    assert for_librdkafka(given, KafkaSecurity()) == {"linger.ms": "3"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: Kafka clients outside Flink go without ")
    assert {name for name in given if name in line} == set(given) - {"linger.ms"}


def test_what_java_s_clients_log_in_with_by_themselves_is_found() -> None:
    assert cannot_log_in({"ssl.engine.factory.class": "com.acme.X"})


def test_a_value_that_no_client_takes_stays() -> None:
    assert for_librdkafka({"security.protocol": "SASL_TYPO"}, KafkaSecurity()) == {"security.protocol": "SASL_TYPO"}


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


def test_java_s_clients_read_secrets_where_they_run() -> None:
    assert for_java({"com.acme.password": "file:/run/p"}, KafkaSecurity()) == {
        "com.acme.password": "${secret:file:/run/p}",
        "config.providers": "secret",
        "config.providers.secret.class": "eventtrigger.flink.SecretProvider",
    }
    assert for_java({"acks": "all", "client.id": "env:P"}, KafkaSecurity()) == {"acks": "all", "client.id": "env:P"}
    assert (
        for_java({"acme.password": "env:P", "config.providers": "mine"}, KafkaSecurity())["config.providers"]
        == "mine,secret"
    )
