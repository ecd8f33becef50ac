from __future__ import annotations

import base64
import random

import pytest

from transforms.domain.base.secret_references import SecretError
from transforms.domain.base.strength import check_strength, most_bits


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "0 characters, 0 bits at most"),
        ("hunter2", "7 characters, 36 bits at most"),
        ("correct-horse-battery", "21 characters, 123 bits at most"),
        ("0123456789abcdef0123456789abcde", "31 characters, 124 bits at most"),
        ("1234567890" * 3, "30 characters, 99 bits at most"),
        ("a" * 64, "repeats 1 characters"),
        ("abcABC12!" * 20, "repeats 9 characters"),
        ("p4ssw0rd with blanks, however long it may be", "has other characters than visible ASCII"),
        ("ä" * 40, "has other characters than visible ASCII"),
        ("0123456789abcdefghijklmnop\x00qrstuvwxyz", "has other characters than visible ASCII"),
    ],
)
def test_what_can_be_guessed_is_refused_and_not_shown(text: str, problem: str) -> None:
    with pytest.raises(SecretError) as raised:
        check_strength(text)
    assert str(raised.value).startswith(problem)
    assert "openssl rand -hex 32" in str(raised.value)
    assert not text or text not in str(raised.value)


def test_random_ones_of_128_bits_are_taken() -> None:
    source = random.Random(7)
    for _ in range(1000):
        check_strength(source.randbytes(16).hex())
        check_strength(base64.urlsafe_b64encode(source.randbytes(16)).decode().rstrip("="))


def test_bits_are_of_the_kinds_of_characters() -> None:
    assert [most_bits(text) for text in ("0" * 10, "f" * 10, "F0" * 5, "g" * 10, "gG0_" * 10)] == [33, 40, 40, 47, 262]
