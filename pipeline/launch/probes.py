"""The questions that ``pipeline.launch.checks`` asks of Kafka, S3 and whoever listens; no judgement here."""

from __future__ import annotations

import contextlib
import re
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

ANSWER_S: Final = 5.0
S3_SCHEMES: Final = ("s3", "s3a", "s3p")


def connection_problem(address: str) -> str | None:
    """Why nobody can be connected to at HOST:PORT; None if somebody can."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except OSError as error:
        return f"{address}: {error.strerror or type(error).__name__}"
    return None


class KafkaProblemError(RuntimeError):
    """Kafka does not answer, or (``unusable``) cannot be asked with these properties; says why as far as is known."""

    def __init__(self, said: str, unusable: bool = False) -> None:
        super().__init__(" ".join(said.split()))
        self.unusable = unusable


def topic_partitions(config: Mapping[str, str]) -> dict[str, int]:
    """The topics of a Kafka cluster and how many partitions they have.

    Raises:
        KafkaProblemError: it does not answer, or a property is one of Java's clients that librdkafka does not know.
    """
    with _asking(config) as admin:
        found = admin.list_topics(timeout=2 * ANSWER_S).topics
    return {name: len(one.partitions) for name, one in found.items() if one.error is None}


def topic_settings(config: Mapping[str, str], topics: Sequence[str], setting: str) -> dict[str, str]:
    """A setting of each of these topics that exists.

    Raises:
        KafkaProblemError: as ``topic_partitions``, or it does not want to tell.
    """
    from confluent_kafka.admin import ConfigResource

    with _asking(config) as admin:
        there = admin.list_topics(timeout=ANSWER_S).topics
        wanted = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics if topic in there]
        return {one.name: value for one, value in _described(admin, wanted, setting)}


def broker_settings(config: Mapping[str, str], setting: str) -> list[str]:
    """A setting of all brokers.

    Raises:
        KafkaProblemError: as ``topic_settings``.
    """
    from confluent_kafka.admin import ConfigResource

    with _asking(config) as admin:
        brokers = admin.list_topics(timeout=ANSWER_S).brokers
        wanted = [ConfigResource(ConfigResource.Type.BROKER, str(broker)) for broker in brokers]
        return [value for _, value in _described(admin, wanted, setting)]


def _described(admin: Any, wanted: Sequence[Any], setting: str) -> Iterator[tuple[Any, str]]:
    if wanted:
        for resource, future in admin.describe_configs(list(wanted), request_timeout=ANSWER_S).items():
            yield resource, str(future.result()[setting].value)


@contextlib.contextmanager
def _asking(config: Mapping[str, str]) -> Iterator[Any]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    told: list[str] = []
    try:
        admin = AdminClient({"log_level": "0", **config, "error_cb": lambda error: told.append(str(error.str()))})
    except KafkaException as error:
        raise KafkaProblemError(error.args[0].str(), unusable=True) from None
    try:
        yield admin
    except KafkaException as error:
        raise KafkaProblemError(told[0] if told else error.args[0].str()) from None


class S3Error(RuntimeError):
    """S3 did not take an object or did not let go of it; says why."""


def write_to_s3(folder: str, endpoint: str | None) -> str | None:
    """Write an object below ``folder`` (``s3://bucket/prefix``) and remove it; what S3 says of the date.

    Credentials and region are found as every AWS program finds them.

    Raises:
        S3Error: it was refused, or nobody answers.
    """
    import botocore.exceptions

    place = urlsplit(folder)
    key = f"{place.path.strip('/')}/doctor-{uuid.uuid4().hex}".lstrip("/")
    try:
        client = _s3(endpoint)
        done = client.put_object(Bucket=place.netloc, Key=key, Body=b"written by python -m pipeline doctor")
        client.delete_object(Bucket=place.netloc, Key=key)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise S3Error(" ".join(str(error).split())) from None
    date: str | None = done["ResponseMetadata"]["HTTPHeaders"].get("date")
    return date


def _s3(endpoint: str | None) -> Any:
    import boto3
    import botocore.config

    timeouts: dict[str, Any] = {"connect_timeout": ANSWER_S, "read_timeout": ANSWER_S}
    style = {} if endpoint is None else {"s3": {"addressing_style": "path"}}
    config = botocore.config.Config(retries={"total_max_attempts": 1}, **timeouts, **style)
    return boto3.client("s3", endpoint_url=endpoint, config=config)


# A job's folder below state.checkpoints.dir, and in it a checkpoint that is complete.
_METADATA: Final = re.compile(r"(?:^|/)([0-9a-f]{32})/chk-\d+/_metadata$")


def retained_checkpoints(folder: str, endpoint: str | None) -> list[tuple[str, int, str]]:
    """The complete checkpoints below a cluster's checkpoint folder, as far as it can be seen from this machine.

    Each is its path, when it was completed [ms since the epoch] and the id of its job. A folder of a file system that
    only the cluster's machines have is empty.

    Raises:
        S3Error: it is in S3, which refuses or does not answer.
    """
    place = urlsplit(folder)
    if place.scheme in S3_SCHEMES:
        return list(_in_s3(folder.rstrip("/"), place.netloc, place.path.strip("/"), endpoint))
    if place.scheme not in ("", "file") or not place.path:
        return []
    files = Path(unquote(place.path)).glob("*/chk-*/_metadata")
    return [
        (file.parent.as_uri(), round(file.stat().st_mtime * 1000), found[1])
        for file in files
        if (found := _METADATA.search(str(file)))
    ]


def _in_s3(folder: str, bucket: str, prefix: str, endpoint: str | None) -> Iterator[tuple[str, int, str]]:
    import botocore.exceptions

    begin = f"{prefix}/" if prefix else ""
    try:
        client = _s3(endpoint)
        for job in _folders(client, bucket, begin):
            for checkpoint in _folders(client, bucket, f"{job}chk-"):
                key = f"{checkpoint}_metadata"
                found = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
                named = _METADATA.search(key)
                if found and named:
                    path = f"{folder}/{checkpoint.removeprefix(begin).rstrip('/')}"
                    yield path, round(found[0]["LastModified"].timestamp() * 1000), named[1]
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise S3Error(f"{folder}: {' '.join(str(error).split())}") from None


def _folders(client: Any, bucket: str, prefix: str) -> Iterator[str]:
    """One level of an S3 "folder": a checkpoint has thousands of objects that nobody here asks for."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    for page in pages:
        yield from (one["Prefix"] for one in page.get("CommonPrefixes", []))
