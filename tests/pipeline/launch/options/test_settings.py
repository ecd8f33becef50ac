"""What settings derive from options."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.launch.options import DIRECT_RUNNER, Settings, parse

FLINK = ["--runner=FlinkRunner", "--bootstrap_servers=b:9092", "--rules=rules"]


def test_without_options_it_is_the_embedded_default() -> None:
    settings = parse([])
    assert settings == Settings()
    assert settings.embedded
    assert settings.runner == DIRECT_RUNNER


def test_the_embedded_default_ends_where_a_broker_is_named() -> None:
    assert not parse(["--bootstrap_servers=b:1", "--rules=r"]).embedded


def test_kafka_properties_reach_their_kind_of_client() -> None:
    settings = parse(
        [
            *FLINK,
            "--isolation_level=read_uncommitted",
            "--kafka_property=socket.keepalive.enable=true",
            "--consumer_property=fetch.min.bytes=5",
            "--producer_property=compression.type=lz4",
            "--producer_property=linger.ms=7",
            "--kafka_property=client.id=a=b=c",
        ]
    )
    assert settings.consumer_config() == {
        "bootstrap.servers": "b:9092",
        "isolation.level": "read_uncommitted",
        "socket.keepalive.enable": "true",
        "client.id": "a=b=c",
        "fetch.min.bytes": "5",
    }
    assert settings.producer_config() == {
        "bootstrap.servers": "b:9092",
        "linger.ms": "7",
        "socket.keepalive.enable": "true",
        "client.id": "a=b=c",
        "compression.type": "lz4",
    }


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().user_shards = 1  # type: ignore[misc]
