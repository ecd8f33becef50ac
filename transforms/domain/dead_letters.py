"""What could not be handled, with everything needed to see why and to send it again."""

from __future__ import annotations

import base64
from dataclasses import dataclass

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


class RejectedError(ValueError):
    """A record that is not what it should be: ``reason`` is one of this module's, ``detail`` names field and value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was not handled, its coordinates in Kafka and its original bytes."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    rule: str | None = None

    def to_json(self) -> bytes:
        """JSON object; ``key`` and ``value`` are the original bytes in base64."""
        return orjson.dumps(
            {
                "reason": self.reason,
                "detail": self.detail,
                "rule": self.rule,
                "topic": self.topic,
                "partition": self.partition,
                "offset": self.offset,
                "timestamp": self.timestamp_ms,
                "key": None if self.key is None else base64.b64encode(self.key).decode(),
                "value": base64.b64encode(self.value).decode(),
            }
        )
