"""The questions that ``pipeline.checks`` asks of Kafka, S3 and whoever listens; no judgement here."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

ANSWER_S: Final = 5.0


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
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    told: list[str] = []
    try:
        admin = AdminClient({"log_level": "0", **config, "error_cb": lambda error: told.append(str(error.str()))})
    except KafkaException as error:
        raise KafkaProblemError(error.args[0].str(), unusable=True) from None
    try:
        found = admin.list_topics(timeout=2 * ANSWER_S).topics
    except KafkaException as error:
        raise KafkaProblemError(told[0] if told else error.args[0].str()) from None
    return {name: len(one.partitions) for name, one in found.items() if one.error is None}


class S3Error(RuntimeError):
    """S3 did not take an object or did not let go of it; says why."""


def write_to_s3(folder: str, endpoint: str | None) -> str | None:
    """Write an object below ``folder`` (``s3://bucket/prefix``) and remove it; what S3 says of the date.

    Credentials and region are found as every AWS program finds them.

    Raises:
        S3Error: it was refused, or nobody answers.
    """
    import boto3
    import botocore.config
    import botocore.exceptions

    place = urlsplit(folder)
    key = f"{place.path.strip('/')}/doctor-{uuid.uuid4().hex}".lstrip("/")
    timeouts: dict[str, Any] = {"connect_timeout": ANSWER_S, "read_timeout": ANSWER_S}
    style = {} if endpoint is None else {"s3": {"addressing_style": "path"}}
    config = botocore.config.Config(retries={"total_max_attempts": 1}, **timeouts, **style)
    try:
        client = boto3.client("s3", endpoint_url=endpoint, config=config)
        done = client.put_object(Bucket=place.netloc, Key=key, Body=b"written by python -m pipeline doctor")
        client.delete_object(Bucket=place.netloc, Key=key)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise S3Error(" ".join(str(error).split())) from None
    date: str | None = done["ResponseMetadata"]["HTTPHeaders"].get("date")
    return date
