"""The key of the hashes that stand for users in logs and audit records, by reference."""

from __future__ import annotations

import secrets

from transforms.adapters.secrets import read_secret
from transforms.domain.base.strength import check_strength
from transforms.domain.base.user_hash import UserHash


def user_hash(reference: str | None) -> UserHash:
    """The hash under the key of a reference; without one under a random key, which nobody has once the process ends.

    Raises:
        SecretError: the key cannot be read, or can be guessed.
    """
    if reference is None:
        return UserHash(secrets.token_bytes(32))
    return UserHash(read_secret(reference, check_strength).encode())
