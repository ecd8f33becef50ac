"""``event-trigger user-hash``: the hash that stands for a user in logs and audit records."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.parameters import check_user
from pipeline.console import out
from pipeline.errors import OptionError
from transforms.adapters.user_hash_key import user_hash as user_hash_of
from transforms.domain.base.secret_references import ALLOWED, SecretError, is_reference


def user_hash(
    user_id: str, /, *further: str, user_hash_key: Annotated[str | None, Parameter(metavar="REFERENCE")] = None
) -> int:
    """Print the hash that stands for a user in logs and audit records, so that they can be searched for it.

    After the key was replaced, lines of before are found with the former key.

    Args:
        user_id: user_id.
        further: further users, a line each.
        user_hash_key: as the pipeline's.
    """
    if user_hash_key is None:
        raise OptionError(
            "--user_hash_key is missing: give the pipeline's; without a key nobody can find users in logs"
        )
    if not is_reference(user_hash_key):
        raise OptionError(f"--user_hash_key is no reference, allowed: {ALLOWED}")
    try:
        hashed = user_hash_of(user_hash_key)
    except SecretError as error:
        raise OptionError(f"--user_hash_key cannot be read: {error}") from None
    for user in (user_id, *further):
        check_user(user)
        out(hashed(user))
    return 0
