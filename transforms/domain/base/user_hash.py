"""Users in logs and audit records: an HMAC of the user id. Whoever has no key cannot try ids against it."""

from __future__ import annotations

import hmac
from typing import Final

_DIGITS: Final = 32  # 128 bits: no two users of a job have the same


class UserHash:
    """Computes the hash of a user under a key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, user_id: str) -> str:
        """HMAC-SHA256 of the id, the first 32 hexadecimal digits."""
        return hmac.digest(self._key, user_id.encode(errors="surrogatepass"), "sha256").hex()[:_DIGITS]
