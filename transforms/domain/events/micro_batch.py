"""Micro-batches: records of one Kafka topic that are sent together to one user shard.

The wire format is specified in runners/flink/connectors/README.md. On Flink the Java operator writes micro-batches, on
other runners ``split_by_shard`` does.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import orjson

from transforms.domain.base import exact_json
from transforms.domain.events.record import Record

VERSION = 1
EVENTS = 0
CONTROL = 1

_SHARD_KEY = struct.Struct(">II")
# Fields of control records that name a user, by precedence.
_USER_FIELDS = ("forget", "inspect", "redrive", "suppress", "unsuppress")


class MicroBatch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Records of one topic and one user shard, in partition order; ``kind`` is ``EVENTS`` or ``CONTROL``."""

    version: int
    kind: int
    topic: str
    records: list[Record]


_decoder = msgspec.msgpack.Decoder(MicroBatch)
_encoder = msgspec.msgpack.Encoder()


def decode_batch(payload: bytes) -> MicroBatch:
    """Decode a micro-batch.

    Raises:
        ValueError: the bytes have another version or are not a micro-batch: the Java and Python sides do not match.
    """
    batch = _decoder.decode(payload)
    if batch.version != VERSION:
        raise ValueError(f"micro-batch version {batch.version}, this worker reads {VERSION}: update the connectors jar")
    return batch


def encode_batch(kind: int, topic: str, records: list[Record]) -> bytes:
    """Encode a micro-batch; ``kind`` is ``EVENTS`` or ``CONTROL``."""
    return _encoder.encode(MicroBatch(VERSION, kind, topic, records))


def shard_of(user: bytes, user_shards: int) -> int:
    """Return the user shard, ``CRC32(user) mod user_shards``."""
    return zlib.crc32(user) % user_shards


def key_of(user: bytes, user_shards: int) -> bytes:
    """Return the Beam key: the user itself if ``user_shards`` is 0, otherwise shard and salt.

    The salt spreads shards over Flink's key groups; on other runners it is 0.
    """
    return _SHARD_KEY.pack(shard_of(user, user_shards), 0) if user_shards else user


def user_bytes(record: Record, user_key: str) -> bytes:
    """Return a record's user: its key (``record``) or ``user_id`` in its body (``field``); empty without a user."""
    if user_key == "record":
        return record.key or b""
    document = _document_of(record)
    user_id = document.get("user_id") if isinstance(document, dict) else None
    return user_id.encode() if isinstance(user_id, str) else b""


def _document_of(record: Record) -> Any:
    """Return the record's JSON as the step reads it, None if it is not JSON."""
    try:
        return exact_json.loads(record.value)
    except orjson.JSONDecodeError:
        return None


def split_by_shard(
    kind: int, topic: str, records: Iterable[Record], user_shards: int, user_key: str
) -> Iterator[tuple[bytes, bytes]]:
    """Group records by user shard and yield (Beam key, micro-batch). Each user's records keep their order."""
    by_key: dict[bytes, list[Record]] = {}
    for record in records:
        if kind == CONTROL:
            keys = control_keys(record, user_shards)
        else:
            keys = [key_of(user_bytes(record, user_key), user_shards)]
        for key in keys:
            by_key.setdefault(key, []).append(record)
    for key, grouped in by_key.items():
        yield key, encode_batch(kind, topic, grouped)


def shard_of_key(key: bytes) -> int:
    """Return the user shard of a Beam key that ``key_of`` made with ``user_shards`` above 0."""
    return int(_SHARD_KEY.unpack(key)[0])


def is_for_all(document: Any) -> bool:
    """Whether a control record (decoded JSON) goes to every shard instead of one user's."""
    if not isinstance(document, dict) or any(isinstance(document.get(name), str) for name in _USER_FIELDS):
        return False
    return "rules" in document or "destination" in document


def control_keys(record: Record, user_shards: int) -> list[bytes]:
    """Return the Beam keys that receive a control record.

    Those are one user's key, every shard, or the key of the empty user (runners/flink/connectors/README.md).
    """
    document = _document_of(record)
    if isinstance(document, dict):
        for name in _USER_FIELDS:
            if isinstance(document.get(name), str):
                return [key_of(document[name].encode(), user_shards)]
    if user_shards and is_for_all(document):
        return [_SHARD_KEY.pack(shard, 0) for shard in range(user_shards)]
    return [key_of(b"", user_shards)]
