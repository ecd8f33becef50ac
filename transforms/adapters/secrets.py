"""Secrets by reference: what travels in options, files and plans says where a secret lies, never what it is."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from transforms.domain.base.errors import EventTriggerError
from transforms.domain.base.secret_references import SecretError

_ARN_REGION: Final = re.compile(r"arn:[a-z-]+:secretsmanager:([a-z0-9-]+):")
_AWS_TIMEOUT_S: Final = 3.0


def read_secret(reference: str) -> str:
    """The text that a reference refers to, as it is now; of AWS after at most some seconds.

    Raises:
        SecretError: it cannot be read, or is not ASCII.
    """
    where, _, name = reference.partition(":")
    try:
        if where == "env":
            text = os.environ[name]
        elif where == "file":
            text = Path(name).read_text("ascii")
        else:
            text = _read_aws(name)
        text.encode("ascii")
    except (KeyError, OSError, UnicodeError) as error:
        raise SecretError(f"{reference}: {_trouble(error)}") from None
    except _AwsError as error:
        raise SecretError(f"{reference}: {error}") from None
    return text


class Secret:
    """A secret that is read when first asked for and again when it is older than ``refresh_s``. Thread-safe.

    One caller a time reads it again, the others get the one before, which stays in use while the new one cannot be
    read; ``trouble`` says why it cannot. ``check`` raises SecretError for a text that is no such secret, without it.
    """

    def __init__(
        self,
        reference: str,
        check: Callable[[str], None],
        refresh_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reference = reference
        self._check = check
        self._refresh_s = refresh_s
        self._clock = clock
        self._lock = threading.Lock()
        self._text: str | None = None
        self._due_s = 0.0
        self.trouble: str | None = None

    def __repr__(self) -> str:
        return f"Secret({self._reference!r})"

    def text(self) -> str:
        """The secret.

        Raises:
            SecretError: it has never been read.
        """
        with self._lock:
            text = self._text
            if text is not None:
                if self._clock() < self._due_s:
                    return text
                self._due_s = self._clock() + self._refresh_s
        return self._reread(text)

    def _reread(self, before: str | None) -> str:
        try:
            text = read_secret(self._reference).strip()
            try:
                self._check(text)
            except SecretError as error:
                raise SecretError(f"{self._reference}: {error}") from None
        except SecretError as error:
            self.trouble = str(error)
            if before is None:
                raise
            return before
        with self._lock:
            self.trouble = None
            self._text, self._due_s = text, self._clock() + self._refresh_s
        return text


class _AwsError(EventTriggerError):
    """What AWS says, in words without the secret."""


def _read_aws(name: str) -> str:
    # Here, because importing it takes 0.3 s, which nobody without such a secret should wait for.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    secret_id, _, key = name.partition("#")
    region = _ARN_REGION.match(secret_id)
    config = Config(connect_timeout=_AWS_TIMEOUT_S, read_timeout=_AWS_TIMEOUT_S, retries={"total_max_attempts": 2})
    try:
        client = boto3.session.Session(region_name=region and region[1]).client("secretsmanager", config=config)
        answer = client.get_secret_value(SecretId=secret_id)
    except ClientError as error:
        raise _AwsError(str(error.response.get("Error", {}).get("Code", "no reason given"))) from None
    except BotoCoreError as error:
        raise _AwsError(type(error).__name__) from None
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise _AwsError("binary, allowed is text")
    return _json_field(text, key) if key else text


def _json_field(text: str, key: str) -> str:
    try:
        fields: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise _AwsError("not a JSON object, so it has no keys")
    if not isinstance(fields.get(key), str):
        raise _AwsError(f"no text under the key {key!r}")
    return str(fields[key])


def _trouble(error: Exception) -> str:
    if isinstance(error, KeyError):
        return "no such environment variable"
    return str(error.strerror) if isinstance(error, OSError) else "not ASCII"
