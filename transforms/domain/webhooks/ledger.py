"""The ledger of deliveries: a topic that says which webhooks have ended, and who may send (docs/delivery.md).

A partition belongs to one user shard. Its records are MessagePack arrays that begin with the kind's number. The numbers
are in every ledger that was ever written: never reuse one. A record only grows at its end, by a field with a default.
Ids are hashes, and no record has a body, a URL or what a receiver said.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from transforms.domain.webhooks.delivery_queue import DELIVERED, GONE, REFUSED, Delivery, DeliveryResult

MAX_ERROR: Final = 200
# What ends a webhook. Others are attempted again, and a ledger says nothing about them.
FINAL: Final = (DELIVERED, REFUSED, GONE)


class LedgerRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The base of all records; ``job`` is a hash of who wrote it."""

    job: bytes


class Claim(LedgerRecord, frozen=True, tag=1):
    """A worker takes over the shard: whoever had it before sends no more."""

    worker: bytes
    session: bytes


class Settled(LedgerRecord, frozen=True, tag=2):
    """A webhook ended: the receiver took it, or refused it for good."""

    key: bytes
    outcome: str
    status: int | None = None
    attempts: int = 1
    error: str = ""

    def result(self, user_id: str, action_id: str) -> DeliveryResult:
        """The result for the shard's step, as if the call had ended now."""
        return DeliveryResult(
            user_id, action_id, self.outcome, self.attempts, self.status, self.error, is_found=True, chance=0.0
        )


class Released(LedgerRecord, frozen=True, tag=3):
    """The worker that had the shard has seen the claim of ``session`` and sends no more."""

    session: bytes


class LedgerPosition(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the state of a shard contains: the end of all webhooks whose records come before ``offset``."""

    topic: str
    offset: int


_decoder = msgspec.msgpack.Decoder(Claim | Settled | Released)
_encoder = msgspec.msgpack.Encoder()


def encode_record(record: LedgerRecord) -> bytes:
    """The value of a record."""
    return _encoder.encode(record)


def decode_record(value: bytes) -> Claim | Settled | Released | None:
    """Read a record's value; None: it is none of this release's."""
    try:
        record: Claim | Settled | Released = _decoder.decode(value)
    except msgspec.DecodeError:
        return None
    return record


def job_hash(job_name: str, user_shards: int) -> bytes:
    """Whose records are one's own: those of this job, with its users in the same shards."""
    return hashlib.blake2b(msgspec.msgpack.encode([job_name, user_shards]), digest_size=8).digest()


def delivery_key(delivery: Delivery) -> bytes:
    """The id of a webhook in the ledger. A redriven one is another than the first, though receivers see the same id."""
    identity = msgspec.msgpack.encode([delivery.action_id, delivery.redrive])
    return hashlib.blake2b(identity, digest_size=16).digest()
