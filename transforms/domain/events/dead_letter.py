"""Dead letters: records and actions that could not be handled, with the reason and all data to send them again."""

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
DUPLICATE_USER_ID = "duplicate_user_id"
BAD_CONTROL_RECORD = "bad_control_record"
RULE_ERROR = "rule_error"
RULE_STATE_FULL = "rule_state_full"
KAFKA_ACTION_TOO_LARGE = "kafka_action_too_large"
ACTION_TOO_LARGE = "action_too_large"
BODY_TOO_LARGE = "body_too_large"
ACTION_TOPIC_REFUSED = "action_topic_refused"
ACTION_TOPIC_MISSING = "action_topic_missing"
DELIVERY_QUEUE_FULL = "delivery_queue_full"
DESTINATION_UNKNOWN = "destination_unknown"
DESTINATION_DISABLED = "destination_disabled"
UNDELIVERED = "undelivered"

# Stages: where the failure happened. The stage decides what an operator has to do (docs/dead-letters.md).
INPUT = "input"
RULE = "rule"
DELIVERY = "delivery"
CONTROL = "control"
UNKNOWN = "unknown"

STAGES: Final = {
    **dict.fromkeys((TOO_LARGE, NOT_JSON, NOT_AN_OBJECT, MISSING_FIELD, WRONG_TYPE, OUT_OF_RANGE), INPUT),
    **dict.fromkeys((KEY_MISMATCH, DUPLICATE_USER_ID), INPUT),
    BAD_CONTROL_RECORD: CONTROL,
    **dict.fromkeys((RULE_ERROR, RULE_STATE_FULL, KAFKA_ACTION_TOO_LARGE, BODY_TOO_LARGE), RULE),
    **dict.fromkeys((ACTION_TOPIC_REFUSED, ACTION_TOPIC_MISSING), RULE),
    **dict.fromkeys((ACTION_TOO_LARGE, DELIVERY_QUEUE_FULL), DELIVERY),
    **dict.fromkeys((DESTINATION_UNKNOWN, DESTINATION_DISABLED, UNDELIVERED), DELIVERY),
}

# Reasons of which the same bytes fail again, whatever an operator does: these letters are not redriven.
FAILS_AGAIN: Final = frozenset(
    (NOT_JSON, NOT_AN_OBJECT, MISSING_FIELD, WRONG_TYPE, DUPLICATE_USER_ID, ACTION_TOO_LARGE, BAD_CONTROL_RECORD)
)

# A dead letter has to fit into a record of 1 MB, the default limit of brokers and producers: a longer one would stop
# the job after every restart. Bytes are in base64 and the key is also the record's key; these limits give 0.8 MB.
MAX_KEY_BYTES: Final = 32 * 1024
MAX_VALUE_BYTES: Final = 256 * 1024
MAX_DETAIL: Final = 4000


class RejectedError(EventTriggerError, ValueError):
    """A record that is not valid: ``reason`` is a constant of this module, ``detail`` names the field and the value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class LostAction:
    """An action that was decided but not delivered, with all data to send it again."""

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
        """Return the JSON object that a dead letter shows; ``body`` is base64."""
        return {**asdict(self), "body": base64.b64encode(self.body).decode()}


class DeadLetter(msgspec.Struct, frozen=True, rename={"timestamp_ms": "timestamp"}):
    """A record that was not handled, with its coordinates in Kafka and its original bytes, or a lost action.

    Attributes:
        reason: a constant of this module.
        detail: why, for people.
        topic: the record's topic; empty, with partition and offset -1, if a lost action has no record any more.
        timestamp_ms: the record's Kafka timestamp.
        rule: the rule, if one failed.
        action: the lost action, if one was decided.
        cut: whether key, value or body were truncated.
        signature: the proof of its origin, see ``letter_signature``.
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
    signature: str | None = None

    def fitting(self) -> DeadLetter:
        """Return the dead letter with key, value, body and detail truncated to their limits; ``cut`` tells readers."""
        key = None if self.key is None else self.key[:MAX_KEY_BYTES]
        value = self.value[:MAX_VALUE_BYTES]
        action = self.action
        if action is not None and len(action.body) > MAX_VALUE_BYTES:
            action = replace(action, body=action.body[:MAX_VALUE_BYTES])
        detail = self.detail if len(self.detail) <= MAX_DETAIL else f"{self.detail[:MAX_DETAIL]}…"
        cut = self.cut or (key, value, action) != (self.key, self.value, self.action)
        return msgspec.structs.replace(self, detail=detail, key=key, value=value, action=action, cut=cut)

    @property
    def stage(self) -> str:
        """The stage of the reason, ``unknown`` for a reason of a later release."""
        return STAGES.get(self.reason, UNKNOWN)

    def to_json(self) -> bytes:
        """Encode as a JSON object; ``key`` and ``value`` are base64."""
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
        if self.signature is not None:
            letter["signature"] = self.signature
        return orjson.dumps(letter)

    @staticmethod
    def of_json(value: bytes) -> DeadLetter:
        """Decode what ``to_json`` of this or another release wrote.

        Raises:
            ValueError: the bytes are not a dead letter; the message names the field.
        """
        try:
            return _decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"no dead letter: {error}") from None


_decoder = msgspec.json.Decoder(DeadLetter)
