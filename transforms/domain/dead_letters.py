"""What could not be handled, with everything needed to see why and to send it again."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec
import orjson

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
    ACTION_TOO_LARGE: DELIVERY,
    DELIVERY_QUEUE_FULL: DELIVERY,
    DESTINATION_UNKNOWN: DELIVERY,
    DESTINATION_DISABLED: DELIVERY,
    UNDELIVERED: DELIVERY,
}


class RejectedError(ValueError):
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
    no coordinates.
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
        return cls(read.reason, read.detail, *where, read.key, read.value, read.rule, read.action)


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


_decoder = msgspec.json.Decoder(_Letter)
