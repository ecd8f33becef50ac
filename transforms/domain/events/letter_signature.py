"""Signatures of dead letters and of redrive records: proofs that a holder of the key wrote them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any, Final

import msgspec

from transforms.domain.events.dead_letter import DeadLetter

SIGNED: Final = "signed"
UNSIGNED: Final = "unsigned"
BAD_SIGNATURE: Final = "bad signature"
NOT_CHECKED: Final = "signature not checked"

_VERSION: Final = "v1,"
# What is signed begins with its kind, so that the signature of a letter is none of a redrive record.
_LETTER: Final = b"event-trigger dead letter v1\n"
_REDRIVE: Final = b"event-trigger redrive v1\n"


class LetterSigner:
    """Signs and checks with the keys that ``keys`` returns: the first one signs, all are accepted.

    Without keys nothing is signed, and no signature can be checked.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Callable[[], tuple[bytes, ...]] | None = None) -> None:
        self._keys = keys

    @property
    def has_keys(self) -> bool:
        """Whether there are keys to sign and check with."""
        return self._keys is not None

    def signed(self, letter: DeadLetter) -> DeadLetter:
        """The letter with a signature; without keys the letter."""
        if self._keys is None:
            return letter
        return msgspec.structs.replace(letter, signature=_sign(self._keys()[0], _LETTER + canonical(letter)))

    def origin(self, letter: DeadLetter) -> str:
        """What is known of a letter's origin, one of the constants of this module."""
        if letter.signature is None:
            return UNSIGNED
        if self._keys is None:
            return NOT_CHECKED
        is_valid = _is_valid(self._keys(), letter.signature, _LETTER + canonical(letter))
        return SIGNED if is_valid else BAD_SIGNATURE

    def sign_redrive(self, signed: bytes) -> str | None:
        """The signature of what a redrive record sends; None without keys."""
        return None if self._keys is None else _sign(self._keys()[0], _REDRIVE + signed)

    def accepts_redrive(self, signature: str | None, signed: bytes) -> bool:
        """Whether a redrive record may be obeyed: without keys any, otherwise one with a valid signature."""
        if self._keys is None:
            return True
        return signature is not None and _is_valid(self._keys(), signature, _REDRIVE + signed)


def letter_id(letter: DeadLetter) -> str:
    """A letter's id, hex: copies of a letter have the same; a letter about another attempt has another."""
    return hashlib.sha256(canonical(letter)).hexdigest()[:32]


def canonical(letter: DeadLetter) -> bytes:
    """All fields of a letter but its signature, in a fixed order and form."""
    action = None if letter.action is None else astuple(letter.action)
    fields = (
        letter.reason,
        letter.detail,
        letter.topic,
        letter.partition,
        letter.offset,
        letter.timestamp_ms,
        letter.key,
        letter.value,
        letter.rule,
        action,
        letter.cut,
    )
    return canonical_json(fields)


def canonical_json(fields: Sequence[Any]) -> bytes:
    """What a signature covers of fields: JSON without spaces, bytes in base64."""
    return json.dumps(fields, separators=(",", ":"), default=_base64).encode()


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _is_valid(keys: tuple[bytes, ...], signature: str, signed: bytes) -> bool:
    given = signature.encode("utf-8", "replace")
    return any(hmac.compare_digest(given, _sign(key, signed).encode()) for key in keys)


def _sign(key: bytes, signed: bytes) -> str:
    return _VERSION + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
