"""Kafka records: as they are read, and as they are handed to ``WriteToTopic``.

The bytes of a produced record are the contract in runners/flink/connectors/README.md.
"""

from __future__ import annotations

import msgspec

VERSION = 1

_encoder = msgspec.msgpack.Encoder()

# Brokers and producers take 1 MB by default, with key, headers and frame: a longer record would stop the job for good.
MAX_PRODUCED_BYTES = 900_000


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One Kafka record: coordinates, broker timestamp in ms, key and value bytes."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes


class ProducedRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record for ``WriteToTopic``; ``topic`` None means the sink's own."""

    version: int
    topic: str | None
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


_produced_decoder = msgspec.msgpack.Decoder(ProducedRecord)


def encode_produced(topic: str | None, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]) -> bytes:
    """The bytes of a record for ``WriteToTopic``."""
    return _encoder.encode(ProducedRecord(VERSION, topic, key, value, headers))


def decode_produced(payload: bytes) -> ProducedRecord:
    """Read what ``encode_produced`` wrote."""
    return _produced_decoder.decode(payload)
