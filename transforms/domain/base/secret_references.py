"""References to secrets: options, files and job graphs name where a secret is stored, never its value."""

from __future__ import annotations

import re
from typing import Final

from transforms.domain.base.errors import EventTriggerError

LOCAL: Final = "env:NAME or file:/ABSOLUTE/PATH"
ALLOWED: Final = "env:NAME, file:/ABSOLUTE/PATH or aws-secret:NAME#JSON-KEY (the key if the secret is a JSON object)"
_VARIABLE: Final = r"env:[A-Za-z_][A-Za-z0-9_]*"
_LOCAL_FORM: Final = re.compile(rf"{_VARIABLE}|file:/[^\0]*")
# Names that AWS Secrets Manager allows, or an ARN, which contains the region.
_AWS_FORM: Final = re.compile(r"aws-secret:[A-Za-z0-9/_+=.@:-]{1,2048}(#[^\s#]{1,256})?")
# Of a reference; for JSON Schemas, too.
REFERENCE: Final = f"{_LOCAL_FORM.pattern}|{_AWS_FORM.pattern}"


class SecretError(EventTriggerError, ValueError):
    """A secret cannot be read; the message names the reference, never the secret."""


def is_local_reference(text: str) -> bool:
    """Whether ``text`` refers to an environment variable or a file, which may exist only on the workers."""
    return _LOCAL_FORM.fullmatch(text) is not None


def is_reference(text: str) -> bool:
    """Whether ``text`` has the form of a reference; the secret may exist only for the workers."""
    return is_local_reference(text) or _AWS_FORM.fullmatch(text) is not None


def variables_in(text: str) -> set[str]:
    """The environment variables that references anywhere in ``text`` name."""
    return {reference.removeprefix("env:") for reference in re.findall(rf"\b{_VARIABLE}", text)}
