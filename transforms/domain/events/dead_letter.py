"""What could not be handled, with everything needed to see why and to send it again."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import msgspec
import orjson

from transforms.domain.base.errors import EventTriggerError

# Reasons are part of the dead letter contract: operators filter and alert on them.
TOO_LARGE = "too_large"
NOT_JSON = "not_json"
NOT_AN_OBJECT = "not_an_object"
MISSING_FIELD = "missing_field"
WRONG_TYPE = "wrong_type"
OUT_OF_RANGE = "out_of_range"
KEY_MISMATCH = "key_mismatch"
BAD_CONTROL_RECORD = "bad_control_record"
RULE_ERROR = "rule_error"
RULE_STATE_FULL = "rule_state_full"
KAFKA_ACTION_TOO_LARGE = "kafka_action_too_large"
ACTION_TOO_LARGE = "action_too_large"
DELIVERY_QUEUE_FULL = "delivery_queue_full"
DESTINATION_UNKNOWN = "destination_unknown"
DESTINATION_DISABLED = "destination_disabled"
UNDELIVERED = "undelivered"

# Where it happened, which is what has to be done about it (docs/dead-letters.md).
INPUT = "input"
RULE = "rule"
DELIVERY = "delivery"
CONTROL = "control"
UNKNOWN = "unknown"

STAGES: Final = {
    TOO_LARGE: INPUT,
    NOT_JSON: INPUT,
    NOT_AN_OBJECT: INPUT,
    MISSING_FIELD: INPUT,
    WRONG_TYPE: INPUT,
    OUT_OF_RANGE: INPUT,
    KEY_MISMATCH: INPUT,
    BAD_CONTROL_RECORD: CONTROL,
    RULE_ERROR: RULE,
    RULE_STATE_FULL: RULE,
    KAFKA_ACTION_TOO_LARGE: RULE,
    ACTION_TOO_LARGE: DELIVERY,
    DELIVERY_QUEUE_FULL: DELIVERY,
    DESTINATION_UNKNOWN: DELIVERY,
    DESTINATION_DISABLED: DELIVERY,
    UNDELIVERED: DELIVERY,
}

# A letter has to fit into a record of 1 MB, which is what brokers and producers take by default: a longer one would
# stop the job, again and again. Bytes are in base64, and the key is the record's key too: this comes to 0.8 MB.
MAX_KEY_BYTES: Final = 32 * 1024
MAX_VALUE_BYTES: Final = 256 * 1024
MAX_DETAIL: Final = 4000


class RejectedError(EventTriggerError, ValueError):
    """A record that is not what it should be: ``reason`` is one of this module's, ``detail`` names field and value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class LostAction:
    """An action that was decided and did not go out, with all that it takes to send it again."""

    action_id: str
    rule_version: int
    action: str
    destination: str
    user_id: str
    event_id: str
    body: bytes
    decided_ms: int
    attempts: int = 0
    status: int | None = None

    def public(self) -> dict[str, Any]:
        """As JSON; ``body`` in base64."""
        return {**asdict(self), "body": base64.b64encode(self.body).decode()}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was not handled, its coordinates in Kafka and its original bytes; or what a rule lost of it.

    ``action`` is set if an action was decided; then there may be no record any more, ``topic`` is empty and there are
    no coordinates. ``cut``: of key, value or body only the beginning is here.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    rule: str | None = None
    action: LostAction | None = None
    cut: bool = False

    def fitting(self) -> DeadLetter:
        """Itself, or cut to what a letter may be long; whoever reads it must not take it for the original then."""
        key = None if self.key is None else self.key[:MAX_KEY_BYTES]
        value = self.value[:MAX_VALUE_BYTES]
        action = self.action
        if action is not None and len(action.body) > MAX_VALUE_BYTES:
            action = replace(action, body=action.body[:MAX_VALUE_BYTES])
        detail = self.detail if len(self.detail) <= MAX_DETAIL else f"{self.detail[:MAX_DETAIL]}…"
        cut = self.cut or (key, value, action) != (self.key, self.value, self.action)
        return replace(self, detail=detail, key=key, value=value, action=action, cut=cut)

    @property
    def stage(self) -> str:
        """Where it happened: one of this module's; ``unknown`` of a reason that a later release has."""
        return STAGES.get(self.reason, UNKNOWN)

    def to_json(self) -> bytes:
        """JSON object; ``key`` and ``value`` are the original bytes in base64."""
        letter: dict[str, Any] = {
            "reason": self.reason,
            "stage": self.stage,
            "detail": self.detail,
            "rule": self.rule,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": self.timestamp_ms,
            "key": None if self.key is None else base64.b64encode(self.key).decode(),
            "value": base64.b64encode(self.value).decode(),
            "cut": self.cut,
        }
        if self.action is not None:
            letter["action"] = self.action.public()
        return orjson.dumps(letter)

    @classmethod
    def of_json(cls, value: bytes) -> DeadLetter:
        """Read what ``to_json`` wrote, also of other releases.

        Raises:
            ValueError: it is no dead letter; names the field.
        """
        try:
            read = _decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"no dead letter: {error}") from None
        where = (read.topic, read.partition, read.offset, read.timestamp)
        return cls(read.reason, read.detail, *where, read.key, read.value, read.rule, read.action, read.cut)


class _Letter(msgspec.Struct):
    """``DeadLetter`` as JSON: bytes are in base64."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    rule: str | None = None
    action: LostAction | None = None
    cut: bool = False


_decoder = msgspec.json.Decoder(_Letter)
