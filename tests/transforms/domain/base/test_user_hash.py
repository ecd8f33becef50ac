from __future__ import annotations

import hashlib
import hmac

from transforms.domain.base.user_hash import UserHash

KEY = "0123456789abcdef0123456789abcdef"


def test_a_hash_is_the_beginning_of_an_hmac_under_the_key() -> None:
    expected = hmac.new(KEY.encode(), "ålice".encode(), hashlib.sha256).hexdigest()[:32]
    assert UserHash(KEY.encode())("ålice") == expected
    assert UserHash(b"another")("ålice") != expected


def test_every_text_has_a_hash() -> None:
    assert len({UserHash(b"key")(text) for text in ("", "a", "\ud800", "\0", "a" * 1_000_000)}) == 5
