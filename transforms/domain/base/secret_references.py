"""References to secrets: options, files and plans say where a secret lies, never what it is."""

from __future__ import annotations

import re
from typing import Final

from transforms.domain.base.errors import EventTriggerError

LOCAL: Final = "env:NAME or file:/ABSOLUTE/PATH"
ALLOWED: Final = "env:NAME, file:/ABSOLUTE/PATH or aws-secret:NAME#JSON-KEY (the key if the secret is a JSON object)"
_LOCAL_FORM: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/[^\0]*")
# The names that AWS Secrets Manager allows; an ARN has the region in it.
_AWS_FORM: Final = re.compile(r"aws-secret:[A-Za-z0-9/_+=.@:-]{1,2048}(#[^\s#]{1,256})?")


class SecretError(EventTriggerError, ValueError):
    """A secret cannot be read; names the reference, never the secret."""


def is_local_reference(text: str) -> bool:
    """Whether ``text`` refers to an environment variable or a file; it may exist on the workers only."""
    return _LOCAL_FORM.fullmatch(text) is not None


def is_reference(text: str) -> bool:
    """Whether ``text`` has the form of a reference; what it refers to may exist for the workers only."""
    return is_local_reference(text) or _AWS_FORM.fullmatch(text) is not None
