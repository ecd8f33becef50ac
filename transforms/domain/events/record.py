"""Kafka records as they are read, and as they are passed to ``WriteToTopic``.

The wire format of a produced record is specified in runners/flink/connectors/README.md.
"""

from __future__ import annotations

import msgspec

VERSION = 1

_encoder = msgspec.msgpack.Encoder()

# Brokers and producers accept 1 MB by default, with key, headers and frame: a longer record would stop the job.
MAX_PRODUCED_BYTES = 900_000


# Kafka's timestamp of a record that has none.
NO_TIME = -1


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A consumed Kafka record: coordinates, Kafka's timestamp in ms (``NO_TIME`` without one), key and value."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes


class ProducedRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record for ``WriteToTopic``; ``topic`` None means the sink's default topic."""

    version: int
    topic: str | None
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


_produced_decoder = msgspec.msgpack.Decoder(ProducedRecord)


def encode_produced(topic: str | None, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]) -> bytes:
    """Encode a record for ``WriteToTopic``."""
    return _encoder.encode(ProducedRecord(VERSION, topic, key, value, headers))


def decode_produced(payload: bytes) -> ProducedRecord:
    """Decode what ``encode_produced`` wrote."""
    return _produced_decoder.decode(payload)
