"""Kafka client properties: Flink's clients are Java's, all others are librdkafka's, and users give one set for both."""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.console import warn
from pipeline.kafka.security import KafkaSecurity, in_java
from transforms.adapters.kafka.clients import is_secret_property
from transforms.domain.base.secret_references import ALLOWED, is_local_reference, is_reference

# Of the consumer, producer and admin client of kafka-clients 3.9 (``configDef().names()``), and of Flink's source.
_JAVA_NAMES: Final = """
acks allow.auto.create.topics auto.commit.interval.ms auto.include.jmx.reporter auto.offset.reset batch.size
bootstrap.controllers bootstrap.servers buffer.memory check.crcs client.dns.lookup client.id client.id.prefix
client.rack commit.offsets.on.checkpoint compression.gzip.level compression.lz4.level compression.type
compression.zstd.level config.providers connections.max.idle.ms default.api.timeout.ms delivery.timeout.ms
enable.auto.commit enable.idempotence enable.metrics.push exclude.internal.topics fetch.max.bytes fetch.max.wait.ms
fetch.min.bytes group.id group.instance.id group.protocol group.remote.assignor heartbeat.interval.ms
interceptor.classes internal.leave.group.on.close internal.throw.on.fetch.stable.offset.unsupported isolation.level
key.deserializer key.serializer linger.ms max.block.ms max.in.flight.requests.per.connection max.partition.fetch.bytes
max.poll.interval.ms max.poll.records max.request.size metadata.max.age.ms metadata.max.idle.ms
metadata.recovery.strategy metric.reporters metrics.num.samples metrics.recording.level metrics.sample.window.ms
partition.assignment.strategy partition.discovery.interval.ms partitioner.adaptive.partitioning.enable
partitioner.availability.timeout.ms partitioner.class partitioner.ignore.keys receive.buffer.bytes
reconnect.backoff.max.ms reconnect.backoff.ms register.consumer.metrics request.timeout.ms retries
retry.backoff.max.ms retry.backoff.ms sasl.client.callback.handler.class sasl.jaas.config sasl.kerberos.kinit.cmd
sasl.kerberos.min.time.before.relogin sasl.kerberos.service.name sasl.kerberos.ticket.renew.jitter
sasl.kerberos.ticket.renew.window.factor sasl.login.callback.handler.class sasl.login.class
sasl.login.connect.timeout.ms sasl.login.read.timeout.ms sasl.login.refresh.buffer.seconds
sasl.login.refresh.min.period.seconds sasl.login.refresh.window.factor sasl.login.refresh.window.jitter
sasl.login.retry.backoff.max.ms sasl.login.retry.backoff.ms sasl.mechanism sasl.oauthbearer.clock.skew.seconds
sasl.oauthbearer.expected.audience sasl.oauthbearer.expected.issuer sasl.oauthbearer.header.urlencode
sasl.oauthbearer.jwks.endpoint.refresh.ms sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms
sasl.oauthbearer.jwks.endpoint.retry.backoff.ms sasl.oauthbearer.jwks.endpoint.url sasl.oauthbearer.scope.claim.name
sasl.oauthbearer.sub.claim.name sasl.oauthbearer.token.endpoint.url security.protocol security.providers
send.buffer.bytes session.timeout.ms socket.connection.setup.timeout.max.ms socket.connection.setup.timeout.ms
ssl.cipher.suites ssl.enabled.protocols ssl.endpoint.identification.algorithm ssl.engine.factory.class
ssl.key.password ssl.keymanager.algorithm ssl.keystore.certificate.chain ssl.keystore.key ssl.keystore.location
ssl.keystore.password ssl.keystore.type ssl.protocol ssl.provider ssl.secure.random.implementation
ssl.trustmanager.algorithm ssl.truststore.certificates ssl.truststore.location ssl.truststore.password
ssl.truststore.type transaction.timeout.ms transactional.id value.deserializer value.serializer
"""
JAVA_PROPERTIES: Final = frozenset(_JAVA_NAMES.split())
# Properties that hold classes, which may have properties of their own.
_PLUGINS: Final = re.compile(r".*\.class(es)?|metric\.reporters|config\.providers|security\.providers")
# No client of ours outside Flink joins a group, and librdkafka refuses some values that Java takes.
_OF_GROUP_MEMBERS: Final = {
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "session.timeout.ms",
}
# The same thing under another name in librdkafka.
_OTHER_NAMES: Final = {
    "fetch.max.wait.ms": "fetch.wait.max.ms",
    "receive.buffer.bytes": "socket.receive.buffer.bytes",
    "send.buffer.bytes": "socket.send.buffer.bytes",
}
# Properties that ``KafkaSecurity`` sets for both kinds of clients, and the options that it is made of.
_OWNED: Final = {
    r"security\.protocol": "--kafka_security",
    r"sasl\.mechanisms?|sasl\.(client|login)\.callback\.handler\.class|sasl\.login\.class": "--kafka_sasl_mechanism",
    r"sasl\.username": "--kafka_user",
    r"sasl\.password": "--kafka_password",
    r"sasl\.jaas\.config": "--kafka_sasl_mechanism, --kafka_user and --kafka_password",
    r"sasl\.oauthbearer\.config": "--kafka_sasl_mechanism=AWS_MSK_IAM",
    r"ssl\.(ca|truststore)\..*": "--kafka_ca_file, which is PEM",
    r"ssl\.certificate\..*|ssl\.keystore\.(location|type|certificate\.chain)": "--kafka_certificate_file, which is PEM",
    r"ssl\.key\.(location|pem)|ssl\.keystore\.key": "--kafka_key",
    r"ssl\.key(store)?\.password": "--kafka_key_passphrase",
}
# Something in a value that gives a secret away, whatever the property's name.
_SECRET_VALUE: Final = re.compile(
    r"-----BEGIN|://[^/@\s]*:[^/@\s]+@|(password|secret|passphrase)\s*[=:]", re.IGNORECASE
)
_NO_SUCH: Final = "No such configuration property"
_NO_PROPERTY: Final = "no.such.property"
_NUMBER: Final = re.compile(r"-?[0-9]+")
_reported: set[str] = set()


def refusal_of(name: str, value: str) -> str | None:
    """Why a property is not taken from users beside ``KafkaSecurity``; None if it is. The text shows no value."""
    option = next((option for pattern, option in _OWNED.items() if re.fullmatch(pattern, name)), None)
    if option is not None:
        return f"which belongs to {option}"
    if not is_reference(value) and ((is_secret_property(name) and value) or _SECRET_VALUE.search(value)):
        return (
            f"whose value is a secret, allowed: {ALLOWED}; what Kafka's brokers ask for is --kafka_password, "
            "--kafka_key and --kafka_key_passphrase"
        )
    return None


def for_java(config: Mapping[str, str], security: KafkaSecurity) -> dict[str, str]:
    """The properties as Java's clients take them, with references to secrets, which are read where the clients run."""
    usable = {**config, **security.for_java()}
    for name in filter(is_secret_property, config):
        if is_local_reference(config[name]):
            usable[name] = in_java(config[name])
    if any("${secret:" in value for value in usable.values()):
        names = [usable["config.providers"]] if "config.providers" in usable else []
        usable["config.providers"] = ",".join([*names, "secret"])
        usable["config.providers.secret.class"] = "eventtrigger.flink.SecretProvider"
    return usable


def unknown_property(names: Iterable[str]) -> tuple[str, str] | None:
    """The first name that neither kind of client has, and what may have been meant; None if there is none.

    Names that belong to a plugin cannot be told, so with a plugin every name may be one.
    """
    names = list(names)
    if any(_PLUGINS.fullmatch(name) for name in names):
        return None
    for name in names:
        if name not in JAVA_PROPERTIES and not _librdkafka_has(name):
            near = difflib.get_close_matches(name, JAVA_PROPERTIES, 1)
            return name, f"did you mean {near[0]!r}?" if near else "allowed: those of Java's clients and librdkafka"
    return None


def for_librdkafka(config: Mapping[str, str], security: KafkaSecurity) -> dict[str, str]:
    """The properties as ``connectable`` takes them for librdkafka, with references to secrets.

    A warning names those that only Java's clients have. A value that neither takes stays, so that the client's own
    error names it.
    """
    usable, unused = _adapted(config)
    unreported = [name for name in unused if name not in _reported]
    if unreported:
        _reported.update(unreported)
        warn(f"Kafka clients outside Flink go without {', '.join(unreported)}, which librdkafka does not take")
    return {**usable, **security.for_librdkafka(config.get("bootstrap.servers", ""))}


def cannot_log_in(config: Mapping[str, str]) -> bool:
    """Whether librdkafka goes without a property by which Java's clients may prove who they and the brokers are."""
    return any(name.startswith(("sasl.", "ssl.", "security.")) for name in _adapted(config)[1])


def _adapted(config: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The properties that librdkafka takes, and the names of the others: it has not all, and not all their numbers."""
    usable = {name: value for name, value in _translated(config).items() if name not in _OF_GROUP_MEMBERS}
    unused = []
    for name, value in list(usable.items()):
        refusal = _refusal(name, value)
        if refusal.startswith(_NO_SUCH) or (refusal and _NUMBER.fullmatch(value)):
            del usable[name]
            unused.append(name)
    while (number := _refused_together(usable)) is not None:
        del usable[number]
        unused.append(number)
    return usable, unused


def _translated(config: Mapping[str, str]) -> dict[str, str]:
    """The properties with librdkafka's names and values where they have others; names that are given come first."""
    usable = dict(config)
    for name, other in _OTHER_NAMES.items():
        if name in usable:
            usable.setdefault(other, usable.pop(name))
    if usable.get("ssl.endpoint.identification.algorithm") == "":
        usable["ssl.endpoint.identification.algorithm"] = "none"
    return usable


def _refused_together(config: Mapping[str, str]) -> str | None:
    """A number that librdkafka does not take beside the other properties; None if there is none."""
    try:
        consumer = Consumer({"log_level": "0", "group.id": "none", **config, "bootstrap.servers": ""})
    except KafkaException as error:
        names = re.findall(r"[\"`]([a-z0-9._-]+)[\"`]", error.args[0].str())
        return next((name for name in names if _NUMBER.fullmatch(config.get(name, ""))), None)
    with contextlib.suppress(KafkaException):
        consumer.close()
    return None


def _librdkafka_has(name: str) -> bool:
    return not _refusal(name, "").startswith(_NO_SUCH)


@functools.cache
def _refusal(name: str, value: str) -> str:
    """Why librdkafka does not take a property, empty if it does. Another name is none, so that no client starts."""
    try:
        AdminClient({name: value, _NO_PROPERTY: ""})
    except TypeError:  # a callback of Python's binding
        return _NO_SUCH
    except KafkaException as error:
        message = str(error.args[0].str())
        return "" if _NO_PROPERTY in message else message
    return ""
