"""Signatures of Standard Webhooks 1.0 (github.com/standard-webhooks, ``spec/standard-webhooks.md``)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final

from transforms.domain.base.secret_references import SecretError

SIGNATURE_HEADER: Final = "webhook-signature"

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = range(24, 65)
_MAX_KEYS: Final = 5
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")  # no dot: dots separate the parts of the signed text


def parse_keys(text: str) -> tuple[bytes, ...]:
    """Parse the signing keys of a secret.

    A key is ``whsec_`` and the base64 of 24 to 64 bytes. While keys are rotated, a secret has several, separated by
    spaces.

    Raises:
        SecretError: the secret has no valid keys; the message shows nothing of it.
    """
    parts = text.split()
    if not 1 <= len(parts) <= _MAX_KEYS:
        raise SecretError(f"{len(parts)} keys, allowed are 1 to {_MAX_KEYS}")
    return tuple(_key(part) for part in parts)


def _key(part: str) -> bytes:
    if not part.startswith(_PREFIX):
        raise SecretError(f"a key that does not begin with {_PREFIX}")
    text = part.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # the padding is optional
    except (binascii.Error, ValueError):
        raise SecretError(f"a key that is not base64 after {_PREFIX}") from None
    if len(key) not in _KEY_BYTES:
        raise SecretError(f"a key of {len(key)} bytes, allowed are {_KEY_BYTES[0]} to {_KEY_BYTES[-1]}")
    return key


def signature_headers(keys: Iterable[bytes], webhook_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Sign a webhook and return the three headers of one attempt.

    Args:
        keys: signing keys; each gives one signature, in this order.
        webhook_id: the action's id.
        timestamp_s: time of the attempt, seconds since the epoch.
        body: the request's body.

    Raises:
        ValueError: the header or the signed text cannot hold the id.
    """
    if not _ID.fullmatch(webhook_id):
        raise ValueError(f"webhook id {webhook_id!r}: allowed are 1 to 128 letters, digits, _ and -")
    signed = f"{webhook_id}.{timestamp_s}.".encode() + body
    macs = (hmac.digest(key, signed, hashlib.sha256) for key in keys)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        SIGNATURE_HEADER: " ".join(f"v1,{base64.b64encode(mac).decode()}" for mac in macs),
    }
