"""Decisions: the lines of the decision log, about rules, their actions and webhooks (docs/decisions.md)."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterable
from typing import Final

import msgspec

from transforms.domain.rules.model import Rule

# The values of ``Decision.decision``: part of the log's contract.
FIRED: Final = "fired"
PENDING: Final = "pending"
GROUP_CAPPED: Final = "group_capped"
OUTRANKED: Final = "outranked"
SUPPRESSED: Final = "suppressed"
HELD: Final = "held"
RELEASED: Final = "released"
DROPPED: Final = "dropped"
REFUSED: Final = "refused"
COOLED_DOWN: Final = "cooled_down"
CAPPED: Final = "capped"
INACTIVE: Final = "inactive"
SKIPPED: Final = "skipped"
ERROR: Final = "error"
BEGUN: Final = "begun"
NOT_BEGUN: Final = "not_begun"
NO_MATCH: Final = "no_match"
FOLLOWED: Final = "followed"
TIMED_OUT: Final = "timed_out"
EXPIRED: Final = "expired"
NOT_ALLOWED: Final = "not_allowed"
SET_ASIDE: Final = "set_aside"
DELIVERED: Final = "delivered"
RETRIED: Final = "retried"
UNDELIVERED: Final = "undelivered"

# All of them.
KINDS: Final = (
    *(
        FIRED,
        HELD,
        RELEASED,
        DROPPED,
        REFUSED,
        COOLED_DOWN,
        CAPPED,
        INACTIVE,
        SKIPPED,
        ERROR,
        BEGUN,
        NOT_BEGUN,
        NO_MATCH,
    ),
    *(PENDING, GROUP_CAPPED, OUTRANKED, SUPPRESSED),
    *(FOLLOWED, TIMED_OUT, EXPIRED, NOT_ALLOWED, SET_ASIDE, DELIVERED, RETRIED, UNDELIVERED),
)

# The topic of decisions that go to a file; no real topic has a colon in its name.
FILE: Final = "file:decisions"

_HASHES: Final = 1 << 64


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One line of the log: ``decision`` is one of this module's, ``time`` processing time; times in ms.

    Fields that do not apply are None and left out of the JSON. ``latency_ms`` is that of the last attempt. ``winner``
    is the rule that the group picked, ``winner_action_id`` its first action.
    """

    decision: str
    time: int
    user_id: str
    event_id: str
    event_name: str | None = None
    event_time: int | None = None
    rule: str
    version: int | None = None
    rule_set: int | None = None
    action: str | None = None
    action_id: str | None = None
    destination: str | None = None
    attempts: int | None = None
    latency_ms: int | None = None
    status: int | None = None
    detail: str | None = None
    group: str | None = None
    winner: str | None = None
    winner_action_id: str | None = None

    def to_json(self) -> bytes:
        """One JSON object."""
        return _encoder.encode(self)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Decision)


def decode_decision(value: bytes) -> Decision:
    """Read what ``to_json`` wrote; fields of a later release are ignored.

    Raises:
        ValueError: the bytes are no decision.
    """
    try:
        return _decoder.decode(value)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sampled(user_id: str, event_id: str, rules: Iterable[Rule], share: float) -> list[Rule]:
    """The rules that are logged although they did not fire: a ``share`` (0 to 1), the same ones on every replay."""
    if share == 0:
        return []
    event = msgspec.msgpack.encode([user_id, event_id])
    number, limit = _hash(event), math.ceil(share * _HASHES)
    # Multiplying by an odd number permutes the hashes, differently for each rule; another hash would take longer.
    return [rule for rule in rules if number * _factor(rule.name) & (_HASHES - 1) < limit]


@functools.lru_cache(maxsize=4096)
def _factor(rule: str) -> int:
    return _hash(rule.encode()) | 1


def _hash(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
