"""How hard a secret is to guess."""

from __future__ import annotations

import math
import string
from typing import Final

from transforms.domain.base.secret_references import SecretError

FEWEST_BITS: Final = 128
_HINT: Final = "as `openssl rand -hex 32` makes them"
_FEWEST_DIFFERENT: Final = 10  # in 32 random hexadecimal digits there are fewer once in a million times
# Of a text whose characters are all of the first alphabet, as few as in it are possible.
_ALPHABETS: Final = (string.digits, string.hexdigits)
_CLASSES: Final = (string.ascii_lowercase, string.ascii_uppercase, string.digits, string.punctuation)


def most_bits(text: str) -> int:
    """The most bits that a text of this length and these kinds of characters can have; words have far fewer."""
    for alphabet in _ALPHABETS:
        if set(text) <= set(alphabet):
            # Hexadecimal digits are of one case.
            return math.floor(len(text) * math.log2(min(len(alphabet), 16)))
    size = sum(len(kind) for kind in _CLASSES if set(kind) & set(text))
    if set(string.ascii_lowercase) & set(text) and set(string.ascii_uppercase) & set(text):
        size = max(size, 64)  # base64, where digits may be missing by chance
    return math.floor(len(text) * math.log2(max(size, 1)))


def check_strength(text: str) -> None:
    """Raise SecretError for a text that can be guessed, or that is not of visible ASCII characters."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise SecretError(f"has other characters than visible ASCII, allowed: {FEWEST_BITS} random bits, {_HINT}")
    if (bits := most_bits(text)) < FEWEST_BITS:
        raise SecretError(f"{len(text)} characters, {bits} bits at most, allowed: {FEWEST_BITS} bits or more, {_HINT}")
    if len(set(text)) < _FEWEST_DIFFERENT:
        raise SecretError(f"repeats {len(set(text))} characters, allowed: {FEWEST_BITS} random bits, {_HINT}")
